//! Placeholder to compile.

use std::sync::Arc;

use super::questions::Questions;

pub(super) async fn run(_questions: Arc<Questions>) {}
