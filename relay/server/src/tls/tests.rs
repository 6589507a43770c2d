//! Files that are wrong, and certificates that change.

use std::fs;

use super::*;

/// A folder with pairs of certificate and key, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millrace-tls-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// Writes a pair of this name.
    fn pair(&self, name: &str, year_of_end: i32) -> Files {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year_of_end, 3, 1);
        let files = Files {
            certificate: self.0.join(format!("{name}.crt")),
            key: self.0.join(format!("{name}.key")),
        };
        fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn check(files: &Files, parts: &[&str]) {
    let error = files.load().unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "`{error}` lacks `{part}`");
    }
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn what_is_wrong_with_the_files_is_told_in_one_line() {
    let folder = Folder::new("wrong");
    let (one, other) = (folder.pair("one", 2999), folder.pair("other", 2999));
    assert!(one.load().is_ok());
    let nowhere = folder.0.join("nowhere");
    check(
        &Files { certificate: nowhere.clone(), ..one.clone() },
        &["tls-certificate", "nowhere", "No such file"],
    );
    check(&Files { key: nowhere, ..one.clone() }, &["tls-key", "nowhere", "No such file"]);
    check(
        &Files { key: other.key.clone(), ..one.clone() },
        &["tls-key", "other.key", "one.crt", "not the key"],
    );
    check(&Files { key: one.certificate.clone(), ..one.clone() }, &["tls-key", "no private key"]);
    check(&Files { certificate: one.key.clone(), ..one.clone() }, &["tls-certificate", "no certificate"]);
    fs::write(&one.certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    check(&one, &["tls-certificate", "one.crt"]);
    fs::write(&one.certificate, "-----BEGIN CERTIFICATE-----\n").unwrap();
    check(&one, &["tls-certificate", "one.crt"]);
}

#[test]
fn an_expired_certificate_is_offered_with_a_warning() {
    let folder = Folder::new("expired");
    let loaded = folder.pair("old", 2020).load().unwrap();
    let now = jiff::Timestamp::now().as_second();
    assert_eq!(loaded.warning(now).unwrap(), "expired on 2020-03-01T00:00:00Z");
    assert_eq!(folder.pair("new", 2999).load().unwrap().warning(now), None);
}

#[test]
fn only_another_certificate_makes_tickets_useless() {
    let folder = Folder::new("tickets");
    let files = folder.pair("one", 2999);
    let limits = HandshakeLimits::default();
    let tls = Tls::new(files.load().unwrap(), limits, TlsKernel::Off);
    let offered = || Arc::clone(&tls.terms.offer().config);
    let first = offered();
    let fewer = HandshakeLimits { in_progress_max: 3, ..limits };
    tls.replace(files.load().unwrap(), fewer, TlsKernel::Off);
    assert!(Arc::ptr_eq(&first, &offered()));
    assert_eq!(tls.terms.offer().limits, fewer);
    let expires = tls.expires();
    folder.pair("one", 2998);
    tls.replace(files.load().unwrap(), limits, TlsKernel::Off);
    assert!(!Arc::ptr_eq(&first, &offered()) && tls.expires() < expires);
}
