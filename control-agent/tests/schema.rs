//! The documents of the protocol that are checked in are what the code says.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use millrace_proto::control::schema;

#[track_caller]
fn check(name: &str, document: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/openapi").join(name);
    if std::env::var_os("MILLRACE_REWRITE").is_some() {
        std::fs::write(&file, document).unwrap();
    }
    let checked_in = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        checked_in == document,
        "{} is not what the code says: run `MILLRACE_REWRITE=1 cargo test --package millrace-agent --test schema`",
        file.display()
    );
}

#[test]
fn the_documents_that_are_checked_in_are_those_of_the_code() {
    check("control.json", &format!("{}\n", schema::document().to_pretty_json().unwrap()));
    let messages = serde_json::to_string_pretty(&schema::messages().unwrap()).unwrap();
    check("control-messages.schema.json", &format!("{messages}\n"));
}

/// What others build on: no reference leads nowhere.
#[test]
fn every_reference_has_its_definition() {
    let schema = schema::messages().unwrap();
    let text = schema.to_string();
    let mut references = 0;
    for part in text.split("\"#/$defs/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schema["$defs"][name].is_object(), "{name}");
        references += 1;
    }
    assert!(references > 10 && !text.contains("#/components/"));
    let document = serde_json::to_value(schema::document()).unwrap();
    for part in document.to_string().split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
}
