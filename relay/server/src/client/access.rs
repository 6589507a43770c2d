//! `access`: who may have a content of a running relay, and the same of `add`.

use millrace_proto::access::Access;
use millrace_proto::admin::{ChangeContent, ContentStatus};
use reqwest::Method;
use serde_json::json;

use super::{Client, read, segment};
use crate::cli::{AccessArgs, AddArgs};
use crate::config::Environment;
use crate::run::Failure;
use crate::serve::println;

pub(super) fn run(args: &AccessArgs, environment: &Environment<'_>) -> Result<(), Failure> {
    let path = format!("/v1/contents/{}", segment(&args.id)?);
    let change = args.ways.as_deref().map(|ways| parse("WAYS", ways)).transpose()?;
    let client = Client::new(&args.client, environment)?;
    let answer = match change {
        Some(access) => {
            let change = json!(ChangeContent { access: Some(access) });
            client.ask(Method::PATCH, &path, Some(&change))?
        }
        None => client.ask(Method::GET, &path, None)?,
    };
    if args.client.json {
        println(&json!({"id": answer.body["id"], "access": answer.body["access"]}).to_string());
        return Ok(());
    }
    let content: ContentStatus = read(answer.body)?;
    // A relay of an earlier version knows nothing of it.
    println(&content.access.unwrap_or_default().to_string());
    Ok(())
}

/// What `add` says of it.
pub(super) fn wanted(args: &AddArgs) -> Result<Option<Access>, Failure> {
    match &args.access {
        _ if args.private => Ok(Some(Access::signed())),
        Some(ways) => parse("--access", ways).map(Some),
        None => Ok(None),
    }
}

fn parse(name: &str, ways: &str) -> Result<Access, Failure> {
    ways.parse().map_err(|problem| Failure::usage(format!("{name}: {problem}")))
}
