//! How far the origins are: the time to open a TCP connection to each. Nothing is asked of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millrace_proto::admin::caps::status::GrantStatus;
use millrace_proto::control::DesiredState;
use millrace_proto::control::report::OriginReport;
use tokio::net::TcpStream;
use url::Url;

/// Longest time to wait for one.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Measures up to `origins_max` origins of what is desired, all at the same time. One that needs a grant and has none is not touched.
pub(crate) async fn measure(
    desired: Option<&DesiredState>,
    grants: &[GrantStatus],
    origins_max: usize,
) -> Vec<OriginReport> {
    let Some(desired) = desired else { return Vec::new() };
    let sources = desired.contents.iter().flat_map(|content| &content.sources);
    let origins: BTreeSet<Url> = sources.filter_map(|source| origin(source)).collect();
    join_all(origins.into_iter().take(origins_max).map(async |url| {
        let origin = url.origin().ascii_serialization();
        match is_open(&origin, desired, grants) {
            true => connect(origin, url).await,
            false => OriginReport { origin, connect_ms: None, error: Some("it needs a grant".to_owned()) },
        }
    }))
    .await
}

/// Scheme, host and port of a source.
fn origin(source: &str) -> Option<Url> {
    let url = Url::parse(source).ok()?;
    Url::parse(&url.origin().ascii_serialization()).ok()
}

/// Whether every grant that an origin needs leaves something: those that the relay knows, and those that it is to know.
fn is_open(origin: &str, desired: &DesiredState, known: &[GrantStatus]) -> bool {
    let of = |known: &&GrantStatus| known.grant.origin == origin;
    let mut wanted = desired.caps.origin.grants.iter().filter(|wanted| wanted.origin == origin);
    known.iter().filter(of).all(|known| known.left > 0)
        && wanted.all(|wanted| known.iter().any(|known| of(&known) && known.grant.id == wanted.id))
}

async fn connect(origin: String, url: Url) -> OriginReport {
    let began = Instant::now();
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let connected = tokio::time::timeout(TIMEOUT, TcpStream::connect((host, port))).await;
    let error = match connected {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no connection within {} s", TIMEOUT.as_secs())),
    };
    let elapsed = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let connect_ms = error.is_none().then_some(elapsed);
    OriginReport { origin, connect_ms, error }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(wanted: Value, known: Value, expected: bool) {
        let desired =
            json!({"relay": "r", "sequence": 1, "expires_at": 1, "caps": {"origin": {"grants": wanted}}});
        let desired = DesiredState::from_json(desired.to_string().as_bytes()).expect("a state");
        let known: Vec<GrantStatus> = serde_json::from_value(known).expect("grants");
        assert_eq!(is_open("http://o", &desired, &known), expected);
    }

    #[test]
    fn what_lacks_a_grant_is_not_open() {
        let wanted = json!([{"origin": "http://o", "id": "a", "bytes": 9}]);
        let known = |id: &str, left: u64| json!([{"origin": "http://o", "id": id, "bytes": 9, "until": null, "layer": "controller", "used": 0, "left": left}]);
        check(json!([]), json!([]), true);
        check(wanted.clone(), known("a", 9), true);
        check(wanted.clone(), known("a", 0), false);
        // The relay has not heard of it yet.
        check(wanted.clone(), json!([]), false);
        check(wanted, known("before", 9), false);
        check(json!([]), known("the operator's", 0), false);
        check(json!([{"origin": "http://other", "id": "a", "bytes": 0}]), json!([]), true);
    }
}
