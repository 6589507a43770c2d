//! `enroll`: makes this box's key and has a controller accept it.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use millrace_proto::control::{ENROLL_PATH, Enroll, Enrolled, PROTOCOL, PublicKey};
use url::Url;

use crate::check::say;
use crate::cli::EnrollArgs;
use crate::folder::Folder;
use crate::identity::{Identity, Key};
use crate::run::{Failure, configuration, runtime};
use crate::{link, tls};

/// Time for the whole exchange.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Most keys, and longest name of a relay, in an answer.
const KEYS_MAX: usize = 8;
const RELAY_CHARS_MAX: usize = 128;

/// Runs the command.
pub(crate) fn enroll(args: EnrollArgs) -> Result<(), Failure> {
    let base = controller(&args.url)?;
    let config = configuration(args.config.as_deref())?;
    let token = match args.token.as_str() {
        "-" => {
            let mut token = String::new();
            std::io::stdin().read_to_string(&mut token).context("no token on standard input")?;
            token.trim().to_owned()
        }
        token => token.to_owned(),
    };
    let folder = Folder::new(config.state.clone());
    let failed = |error| Failure::Failed(anyhow::Error::from(error));
    if let Some(Enrolled { relay, url, .. }) = Identity::enrolled(&folder).map_err(failed)? {
        let file = folder.path("identity.json");
        return Err(anyhow!(
            "this box is enrolled already, as `{relay}` of {url}: remove {} to enrol it anew",
            file.display()
        )
        .into());
    }
    let client = tls::client(&config)?;
    let key = Key::open_or_make(&folder).map_err(failed)?;
    let request = request(token, key.public(), args.name);
    let enrolled = runtime()?.block_on(ask(&client, &base, &request))?;
    Identity::save(&folder, &enrolled).map_err(failed)?;
    say(&format!(
        "enrolled as `{}`: `systemctl enable --now millrace-agent` connects to {}",
        enrolled.relay, enrolled.url
    ));
    Ok(())
}

/// The controller's URL, if a secret may be sent there.
pub(crate) fn controller(text: &str) -> Result<Url, Failure> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "https" && url.has_host());
    url.ok_or_else(|| Failure::Usage(format!("`{text}`: write where the controller is, https://…")))
}

pub(crate) fn request(token: String, key: PublicKey, name: Option<String>) -> Enroll {
    Enroll { protocol: PROTOCOL, token, key, name, version: env!("CARGO_PKG_VERSION").to_owned() }
}

/// Where a controller at `base` enrols.
pub(crate) fn address(base: &Url) -> String {
    format!("{}{ENROLL_PATH}", base.as_str().trim_end_matches('/'))
}

/// Asks once.
pub(crate) async fn ask(client: &reqwest::Client, base: &Url, request: &Enroll) -> anyhow::Result<Enrolled> {
    let body = serde_json::to_vec(request).context("the request cannot be written")?;
    let exchange = async {
        let sent =
            client.post(address(base)).header("Content-Type", "application/json").body(body).send().await;
        let response = sent.map_err(|error| anyhow!("{base} does not answer: {}", tls::causes(&error)))?;
        let status = response.status();
        if !status.is_success() {
            return Err(anyhow!("{base} answers {status}: {}", link::problem(response).await));
        }
        let answer = response.bytes().await.map_err(|error| anyhow!("{base}: {}", tls::causes(&error)))?;
        read(&answer).map_err(|why| anyhow!("the answer of {base} is not understood: {why}"))
    };
    tokio::time::timeout(TIMEOUT, exchange).await.map_err(|_| anyhow!("{base} takes longer than a minute"))?
}

/// An answer that can be lived with.
pub(crate) fn read(answer: &[u8]) -> Result<Enrolled, String> {
    let enrolled: Enrolled = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
    if !(1..=RELAY_CHARS_MAX).contains(&enrolled.relay.chars().count()) {
        return Err("`relay` is not of 1 to 128 characters".to_owned());
    }
    if !(1..=KEYS_MAX).contains(&enrolled.keys.len()) {
        return Err("`keys` are not 1 to 8".to_owned());
    }
    let url = Url::parse(&enrolled.url).ok().filter(|url| url.scheme() == "wss" && url.has_host());
    url.map(|_| enrolled).ok_or_else(|| "`url` is not wss://…".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_over_tls_alone() {
        assert!(controller("https://c/x/").is_ok_and(|url| address(&url) == "https://c/x/v1/enroll"));
        for bad in ["http://c", "c", "wss://c", "https://", ""] {
            assert!(matches!(controller(bad), Err(Failure::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn answers_are_looked_at() {
        let key = "A".repeat(43);
        let check = |text: String, good| assert_eq!(read(text.as_bytes()).is_ok(), good, "{text}");
        check(format!(r#"{{"relay":"r","url":"wss://c/","keys":["{key}"],"newer":1}}"#), true);
        check(format!(r#"{{"relay":"","url":"wss://c/","keys":["{key}"]}}"#), false);
        check(format!(r#"{{"relay":"r","url":"ws://c/","keys":["{key}"]}}"#), false);
        check(r#"{"relay":"r","url":"wss://c/","keys":[]}"#.to_owned(), false);
        check("[]".to_owned(), false);
    }
}
