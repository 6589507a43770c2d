//! `keys generate` and `sign`: on whichever machine the keys are.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use millrace_proto::access::signature::{Grant, Key, SECRET_BYTES, is_signed};
use millrace_proto::admin::caps::Cidr;
use millrace_proto::http::target::{Escaped, Path};
use ring::rand::{SecureRandom, SystemRandom};
use url::Url;

use super::read_keys;
use crate::cli::{KeysAction, KeysArgs, SignArgs};
use crate::run::Failure;
use crate::serve::println;

/// Longest time that a URL may be signed for. A key has to be kept as long.
const LIFE_S_MAX: u64 = 10 * 366 * 86_400;

/// Prints a new key as a line for a file of keys.
pub(crate) fn keys(args: &KeysArgs) -> Result<(), Failure> {
    let KeysAction::Generate { id } = &args.action;
    let mut secret = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut secret).map_err(|_| anyhow!("the system gives no randomness"))?;
    // The day says which of two is older.
    let today = || jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let id = id.clone().unwrap_or_else(today);
    let key = Key::new(&id, secret).map_err(|problem| Failure::usage(format!("--id: {problem}")))?;
    println(&key.to_line());
    Ok(())
}

/// Prints a URL with its signature.
pub(crate) fn sign(args: &SignArgs) -> Result<(), Failure> {
    let wrong = |flag: &str, problem: String| Failure::usage(format!("{flag}: {problem}"));
    let life_s = seconds(&args.expires).map_err(|problem| wrong("--expires", problem))?;
    let network = args.network.as_deref().map(str::parse::<Cidr>).transpose();
    let network = network.map_err(|problem| wrong("--network", problem))?;
    let url = Url::parse(&args.url).map_err(|error| wrong("URL", format!("`{}`: {error}", args.url)))?;
    if url.cannot_be_a_base() || url.fragment().is_some() || url.query().is_some_and(is_signed) {
        return Err(wrong(
            "URL",
            format!("`{}`: write an http(s) URL without a signature or fragment", args.url),
        ));
    }
    let path = Path::parse(url.path()).map_err(|error| wrong("URL", error.to_string()))?;
    let path: Vec<u8> = Escaped(path.as_str()).bytes().collect();
    if path.ends_with(b"/") && std::str::from_utf8(&path).is_err() {
        return Err(wrong("URL", "what is below a path can be signed where the path is UTF-8".to_owned()));
    }
    let keys = read_keys(&args.key_file)
        .map_err(|error| anyhow!("{}", error.to_string().replacen("access.keys", "--key-file", 1)))?;
    let key = match &args.key {
        Some(id) => {
            keys.find(id).with_context(|| format!("--key: {} has no key `{id}`", args.key_file.display()))?
        }
        None => keys.newest().with_context(|| {
            format!("--key-file: {} has no key: `keys generate` makes one", args.key_file.display())
        })?,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs();
    println(&signed(url, key, &Grant { path: &path, expires: now + life_s, network }));
    Ok(())
}

/// The URL with the parameters of a grant behind those that it has.
fn signed(mut url: Url, key: &Key, grant: &Grant<'_>) -> String {
    let query = match url.query().filter(|query| !query.is_empty()) {
        Some(own) => format!("{own}&{}", key.query(grant)),
        None => key.query(grant),
    };
    url.set_query(Some(&query));
    url.into()
}

/// A number of seconds, minutes, hours or days.
fn seconds(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}`: write a time from 1s to 3660d, such as 90m, 24h or 7d");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_s));
    seconds.filter(|seconds| (1..=LIFE_S_MAX).contains(seconds)).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use millrace_proto::access::signature::Keys;

    use super::*;

    #[test]
    fn times_are_read_or_refused() {
        for (text, expected) in [("1s", 1), ("90m", 5400), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for bad in ["", "24", "h", "0s", "-1h", "1w", "1 h", "4000d", "99999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_signed_is_what_a_relay_is_asked_for() {
        let line = Key::new("k", [3; SECRET_BYTES]).unwrap().to_line();
        let keys = Keys::parse(&line).unwrap();
        for text in ["http://h:8080/c/x/größe a.iso", "https://h/pull/o/f%2520?v=1", "http://h/c/x/"] {
            let url = Url::parse(text).unwrap();
            let path: Vec<u8> = Escaped(url.path()).bytes().collect();
            let grant = Grant { path: &path, expires: 5, network: None };
            let signed = Url::parse(&signed(url, keys.newest().unwrap(), &grant)).unwrap();
            let query = signed.query().unwrap();
            assert_eq!(keys.check(signed.path(), query, [192, 0, 2, 1].into(), 5), Ok(()), "{signed}");
            assert_eq!(query.contains("v=1"), text.contains("v=1"), "{signed}");
        }
    }
}
