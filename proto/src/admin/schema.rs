//! Schemas of what a type alone does not say: what texts of a request look like.

use utoipa::openapi::schema::{Array, Object, ObjectBuilder, Schema, Type};

fn text(description: &str, pattern: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .pattern(Some(pattern))
        .build()
}

fn list(description: &str, items: Object, items_max: usize) -> Schema {
    let mut list = Array::new(items);
    list.description = Some(description.to_owned());
    list.max_items = Some(items_max);
    list.into()
}

/// An absent key is one way to say that there is no such thing, `null` another.
fn or_null(mut text: Object) -> Schema {
    text.schema_type = [Type::String, Type::Null].into_iter().collect();
    text.into()
}

pub(super) fn sources() -> Schema {
    let source = text("http(s) URL, or absolute path on the relay's machine.", "^(https?://|file:///|/).+");
    list(
        "Where the content is pulled from: http(s) URLs, local paths, or a .torrent. Empty where `metainfo` names web seeds.",
        source,
        super::SOURCES_MAX,
    )
}

pub(super) fn mirrors() -> Schema {
    let mirror = text("http(s) URL.", "^https?://.+");
    list("URLs of equal copies, told to clients and never pulled from.", mirror, super::SOURCES_MAX)
}

pub(super) fn id() -> Schema {
    or_null(text(
        "The content id to use (26 lower-case base32 characters, 128 bits); the relay draws one when it is absent.",
        "^[a-z2-7]{25}[aeimquy4]$",
    ))
}

pub(super) fn metainfo() -> Schema {
    or_null(text(
        "A .torrent file in base64.",
        "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    ))
}

pub(super) fn sha256() -> Schema {
    or_null(text("SHA-256 of the file in hexadecimal.", "^[0-9A-Fa-f]{64}$"))
}

pub(super) fn access() -> Schema {
    let way = text(
        "`public`, which stands alone, `signed`, or a network.",
        "^(public|signed|[0-9A-Fa-f.:]{2,39}(/[0-9]{1,3})?)$",
    );
    list(
        "Who may have it: everybody, or who comes by any of these ways; none is nobody.",
        way,
        crate::access::NETWORKS_MAX,
    )
}
