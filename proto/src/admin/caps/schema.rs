//! Schemas of values that are written in more than one way.

use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

fn number_or_text(description: &str, types: impl IntoIterator<Item = Type>) -> Schema {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter(types))
        .minimum(Some(0))
        .description(Some(description))
        .into()
}

pub(super) fn limit() -> Schema {
    let description = "Bytes a second as a number or as text such as `2Gbit/s`; or a percentage of `line_rate`, such as `40%`. `null` is unlimited, 0 is paused.";
    number_or_text(description, [Type::Integer, Type::String, Type::Null])
}

pub(super) fn rate() -> Schema {
    number_or_text(
        "Bytes a second, as a number or as text such as `10Gbit/s`.",
        [Type::Integer, Type::String, Type::Null],
    )
}

pub(super) fn size() -> Schema {
    number_or_text(
        "Bytes, as a number or as text such as `10TB`; `null` is unlimited.",
        [Type::Integer, Type::String, Type::Null],
    )
}

pub(super) fn size_of_grant() -> Schema {
    number_or_text("Bytes, as a number or as text such as `10TB`.", [Type::Integer, Type::String])
}

pub(super) fn window() -> Schema {
    number_or_text(
        "`second`, `minute`, `hour`, `day`, `month`, or a number of seconds.",
        [Type::Integer, Type::String],
    )
}
