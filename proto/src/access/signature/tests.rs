use super::*;

const ID: &str = "gaytemzugu3doobzmfrggzdfmy";
const EXPIRES: u64 = 1_800_000_000;
const CLIENT: &str = "192.0.2.7";

/// `old`, whose secret is all sevens, and `2026-11`, whose secret are the bytes from 0 to 31.
const FILE: &str = "# of two relays\nold BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc\n\n 2026-11\tAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";

fn keys() -> Keys {
    Keys::parse(FILE).unwrap()
}

fn sign(path: &str, network: Option<&str>) -> String {
    let network = network.map(|network| network.parse().unwrap());
    keys().find("2026-11").unwrap().query(&Grant { path: path.as_bytes(), expires: EXPIRES, network })
}

#[track_caller]
fn check(path: &str, query: &str, expected: Result<(), Refusal>) {
    check_from(CLIENT, EXPIRES, path, query, expected);
}

#[track_caller]
fn check_from(client: &str, now: u64, path: &str, query: &str, expected: Result<(), Refusal>) {
    assert_eq!(keys().check(path, query, client.parse().unwrap(), now), expected, "{path}?{query}");
}

/// The signatures are those of Python's `hmac`; the first also of
/// `printf 'millrace-url-1\n2026-11\n1800000000\n\n/c/gaytemzugu3doobzmfrggzdfmy/a file.iso' | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102…1f`.
#[test]
fn signatures_are_those_of_other_programs() {
    let head = "expires=1800000000&key=2026-11";
    let (file, other, folder) =
        (format!("/c/{ID}/a file.iso"), format!("/c/{ID}/größe.iso"), format!("/c/{ID}/"));
    assert_eq!(sign(&file, None), format!("{head}&signature=c5Ra-GEPtE-xOd_B9IOWFyqvKWALkq39rZbuHvKeO2g"));
    assert_eq!(
        sign(&other, Some("10.0.0.0/8")),
        format!("{head}&network=10.0.0.0/8&signature=3mthz6ybwyIZr1zUnZDI4BkanZAdQWk3QCl4MJdkGAE")
    );
    assert_eq!(
        sign(&folder, None),
        format!("{head}&prefix=%2Fc%2F{ID}%2F&signature=80OSWixSbQKBpvSI-zDZDnWLkCX9QyQvP4gAIMVx3Go")
    );
}

#[test]
fn a_path_is_decoded_once_however_it_is_escaped() {
    let query = sign(&format!("/c/{ID}/a file%20.iso"), None);
    for path in ["a%20file%2520.iso", "%61%20file%2520%2eiso"] {
        check(&format!("/c/{ID}/{path}"), &query, Ok(()));
    }
    check(&format!("/c/{ID}/a%20file%20.iso"), &query, Err(Refusal::Wrong));
    check(&format!("/c/{ID}/a%2520file%252520.iso"), &query, Err(Refusal::Wrong));
    // Whoever passes it on may escape the query as well, put it into another order, and add to it.
    let [expires, key, signature]: [&str; 3] = query.split('&').collect::<Vec<_>>().try_into().unwrap();
    let other = format!("utm=x&{}&%6bey=2026%2D11&{expires}&flag", signature.replace('-', "%2D"));
    check(&format!("/c/{ID}/a%20file%2520.iso"), &other, Ok(()));
    check(&format!("/c/{ID}/a%20file%2520.iso"), &format!("{expires}&{key}"), Err(Refusal::Malformed));
}

#[test]
fn whatever_is_changed_is_noticed() {
    let (path, elsewhere) = (format!("/c/{ID}/file"), format!("/c/{ID}/filf"));
    let query = sign(&path, Some("192.0.2.0/24"));
    check(&path, &query, Ok(()));
    let swapped = |from: &str, to: &str| {
        assert!(query.contains(from), "{query} has no {from}");
        query.replacen(from, to, 1)
    };
    use Refusal::{Malformed, UnknownKey, Wrong};
    check(&elsewhere, &query, Err(Wrong));
    check(&path, &swapped("1800000000", "1800000001"), Err(Wrong));
    check(&path, &swapped("key=2026-11", "key=old"), Err(Wrong));
    check(&path, &swapped("key=2026-11", "key=2026-12"), Err(UnknownKey));
    check(&path, &swapped("192.0.2.0/24", "192.0.0.0/16"), Err(Wrong));
    check(&path, &swapped("&network=192.0.2.0/24", ""), Err(Wrong));
    check(&path, &swapped("192.0.2.0/24", "192.0.2.1/24"), Err(Malformed));
    for (from, to) in [
        ("signature=", "signature=!"),
        ("1800000000", "+1800000000"),
        ("1800000000", ""),
        ("1800000000", "-1"),
    ] {
        check(&path, &swapped(from, to), Err(Malformed));
    }
    let signature = query.split_once("signature=").unwrap().1;
    for at in 0..signature.len() {
        let other = if signature.as_bytes()[at] == b'A' { "B" } else { "A" };
        let changed = format!("{}{other}{}", &signature[..at], &signature[at + 1..]);
        let query = query.replace(signature, &changed);
        assert!(keys().check(&path, &query, CLIENT.parse().unwrap(), 0).is_err(), "{query}");
    }
    let cut = query.replace(signature, &signature[..40]);
    check(&path, &cut, Err(Wrong));
    for twice in ["signature=x", "expires=1900000000", "key=old", "network=0.0.0.0/0"] {
        check(&path, &format!("{query}&{twice}"), Err(Malformed));
        check(&path, &format!("{twice}&{query}"), Err(Malformed));
    }
}

#[test]
fn a_prefix_covers_what_is_below_it_and_nothing_beside() {
    let query = sign(&format!("/c/{ID}/"), None);
    for below in ["", "file", "folder/file", "folder/"] {
        check(&format!("/c/{ID}/{below}"), &query, Ok(()));
    }
    for beside in [format!("/c/{ID}"), format!("/c/{ID}.torrent"), "/c/other/file".to_owned()] {
        check(&beside, &query, Err(Refusal::Wrong));
    }
    // A file's signature covers no folder, a folder's no other one, and neither is passed off as the other.
    let prefix = format!("&prefix=%2Fc%2F{ID}%2F");
    let file = sign(&format!("/c/{ID}/file"), None);
    check(&format!("/c/{ID}/file"), &format!("{file}{prefix}"), Err(Refusal::Wrong));
    check(&format!("/c/{ID}/file"), &format!("{file}&prefix=%2Fc%2F{ID}%2Ffile"), Err(Refusal::Wrong));
    check(&format!("/c/{ID}/file"), &query.replace(&prefix, "&prefix=%2Fc%2F"), Err(Refusal::Wrong));
    check(&format!("/c/{ID}/"), &query.replace(&prefix, ""), Err(Refusal::Wrong));
    check(&format!("/c/{ID}/file"), &query.replace(&prefix, ""), Err(Refusal::Wrong));
}

#[test]
fn a_name_with_newlines_is_no_other_grant() {
    let key = keys();
    let key = key.find("2026-11").unwrap();
    let grant = Grant { path: b"/c/x", expires: 1, network: Some("10.0.0.0/8".parse().unwrap()) };
    let shifted = Grant { path: b"10.0.0.0/8\n/c/x", expires: 1, network: None };
    let signature = |grant| key.query(&grant).split_once("signature=").unwrap().1.to_owned();
    assert_ne!(signature(grant), signature(shifted));
}

#[test]
fn the_last_second_still_counts() {
    let (path, query) = (format!("/c/{ID}/file"), sign(&format!("/c/{ID}/file"), None));
    check_from(CLIENT, 0, &path, &query, Ok(()));
    check_from(CLIENT, EXPIRES, &path, &query, Ok(()));
    check_from(CLIENT, EXPIRES + 1, &path, &query, Err(Refusal::Expired));
    // Who changes the time is told of that alone.
    check_from(CLIENT, EXPIRES + 1, &path, &query.replace("18000", "19000"), Err(Refusal::Wrong));
}

#[test]
fn a_network_is_that_of_the_client() {
    let path = format!("/c/{ID}/file");
    let v4 = sign(&path, Some("192.0.2.0/24"));
    check_from("::ffff:192.0.2.7", EXPIRES, &path, &v4, Ok(()));
    check_from("192.0.3.7", EXPIRES, &path, &v4, Err(Refusal::OtherNetwork));
    check_from("2001:db8::1", EXPIRES, &path, &v4, Err(Refusal::OtherNetwork));
    let v6 = sign(&path, Some("2001:db8::/32"));
    check_from("2001:db8:1::1", EXPIRES, &path, &v6, Ok(()));
    check_from(CLIENT, EXPIRES, &path, &v6, Err(Refusal::OtherNetwork));
}

#[test]
fn keys_are_rotated_by_adding_one_and_taking_one_away() {
    let path = format!("/c/{ID}/file");
    let query = sign(&path, None);
    let client = CLIENT.parse().unwrap();
    assert_eq!(keys().newest().unwrap().id(), "2026-11");
    let more = Keys::parse(&format!("{FILE}2026-12 {}\n", "A".repeat(43))).unwrap();
    assert_eq!(more.check(&path, &query, client, 0), Ok(()));
    assert_eq!(more.newest().unwrap().id(), "2026-12");
    let fewer = Keys::parse(&format!("2026-12 {}", "A".repeat(43))).unwrap();
    assert_eq!(fewer.check(&path, &query, client, 0), Err(Refusal::UnknownKey));
    assert_eq!(Keys::default().check(&path, &query, client, 0), Err(Refusal::UnknownKey));
}

#[test]
fn files_of_keys_are_read_whole_or_not_at_all() {
    let secret = "A".repeat(43);
    let error = |text: String| Keys::parse(&text).err().unwrap_or_default();
    assert!(error(format!("a {secret}\na {secret}")).starts_with("line 2: another"));
    for bad in
        ["a".to_owned(), format!("a {}", &secret[1..]), format!("a {secret}A"), format!("a/b {secret}")]
    {
        let error = error(format!("# keys\n{bad}"));
        assert!(error.starts_with("line 2: ") && !error.contains("AAAA"), "{bad}: {error}");
    }
    let many: String = (0..=KEYS_MAX).map(|number| format!("k{number} {secret}\n")).collect();
    assert!(Keys::parse(&many).is_err());
    let key = Key::new("x", [9; 32]).unwrap();
    assert_eq!(Keys::parse(&key.to_line()).unwrap().newest().unwrap().to_line(), key.to_line());
    assert!(!format!("{key:?}").contains('9'), "{key:?}");
}

#[test]
fn a_query_is_signed_or_it_is_not() {
    assert!(is_signed("signature=x") && is_signed("a=b&signature") && is_signed("%73ignature=x"));
    assert!(
        !is_signed("")
            && !is_signed("a=signature")
            && !is_signed("Signature=x")
            && !is_signed("signatures=x")
    );
}
