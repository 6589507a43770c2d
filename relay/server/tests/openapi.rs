//! The OpenAPI document that is checked in is what the code says.

use std::path::Path;

use millrace_relay::control::admin;

#[test]
fn the_document_that_is_checked_in_is_that_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/openapi/relay-admin.json");
    let document = format!("{}\n", admin::document().to_pretty_json().unwrap());
    if std::env::var_os("MILLRACE_REWRITE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &document).unwrap();
    }
    let checked_in = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        checked_in == document,
        "{} is not what the code says: run `MILLRACE_REWRITE=1 cargo test --package millrace-relay --test openapi`",
        file.display()
    );
}

/// What others build on: every address of the API, and who answers for it.
#[test]
fn every_address_is_in_it() {
    let document = serde_json::to_value(admin::document()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut addresses = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            addresses.push(format!("{} {path}", method.to_uppercase()));
            assert!(operation["summary"].is_string(), "{method} {path} says nothing of itself");
            assert!(operation["responses"]["403"].is_object(), "{method} {path}");
        }
    }
    addresses.sort();
    for address in [
        "DELETE /v1/contents/{id}",
        "GET /healthz",
        "GET /metrics",
        "GET /readyz",
        "GET /v1/caps",
        "GET /v1/contents",
        "GET /v1/contents/{id}",
        "GET /v1/events",
        "GET /v1/openapi.json",
        "GET /v1/status",
        "PATCH /v1/caps",
        "POST /v1/contents",
        "POST /v1/contents/{id}/pause",
        "POST /v1/contents/{id}/pin",
        "POST /v1/contents/{id}/priority",
        "POST /v1/contents/{id}/resume",
        "POST /v1/contents/{id}/unpin",
        "POST /v1/contents/{id}/verify",
        "POST /v1/drain",
        "POST /v1/upgrade",
        "PUT /v1/caps",
    ] {
        assert!(addresses.iter().any(|found| found == address), "{address} is missing: {addresses:?}");
    }
}
