//! The protocol for other people's controllers: an OpenAPI document of what goes over HTTPS, and a JSON Schema of the messages.

use serde_json::{Value, json};
use utoipa::OpenApi as _;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{OpenApi, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::signed::{Claims, PublicKey};
use super::{DesiredState, Enroll, Enrolled, ToAgent, ToController};
use crate::admin::Problem;

impl PartialSchema for PublicKey {
    fn schema() -> RefOr<Schema> {
        let key = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9_-]{43}$"));
        key.description(Some("An Ed25519 public key: 32 bytes in base64url. It is its own `kid`.")).into()
    }
}

impl ToSchema for PublicKey {}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Millrace controller, as agents use it",
        version = "1",
        description = "Enrolment over HTTPS, and the WebSocket on which everything else is said, in messages of `control-messages.schema.json`. \
            docs/control-protocol.md tells it in plain words. Every refusal is a problem document (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "https://controller.example", description = "Where the controller is.")),
    paths(enroll, connect),
    components(schemas(Claims, Problem)),
)]
struct Document;

/// Accept a relay's key
///
/// The same key with the same token again answers with the same relay.
#[utoipa::path(
    post, path = "/v1/enroll", request_body = Enroll,
    responses(
        (status = 200, description = "The relay is known from now on.", body = Enrolled),
        (status = 400, description = "The body is not understood.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The token is unknown, or was used for another key.", body = Problem, content_type = "application/problem+json"),
    ),
)]
#[expect(dead_code, reason = "it stands for an operation of the document")]
fn enroll() {}

/// Open the WebSocket
///
/// At the `url` of the enrolment, whatever its path (RFC 6455). The bearer is a JWT (RFC 7519, 8037): `alg` EdDSA, `kid` the agent's key,
/// `typ` JWT, and `Claims`.
#[utoipa::path(
    get, path = "/v1/agent",
    params(("Authorization" = String, Header, description = "`Bearer` and the token.")),
    responses(
        (status = 101, description = "Messages from now on."),
        (status = 401, description = "The token is missing, expired, for another address, or not signed by an enrolled key.", body = Problem, content_type = "application/problem+json"),
    ),
)]
#[expect(dead_code, reason = "it stands for an operation of the document")]
fn connect() {}

/// What goes over HTTPS.
#[must_use]
pub fn document() -> OpenApi {
    Document::openapi()
}

#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(ToAgent, ToController, DesiredState)))]
struct Messages;

/// The messages, and the payload of a document: JSON Schema 2020-12.
///
/// # Errors
/// A schema that cannot be written.
pub fn messages() -> Result<Value, serde_json::Error> {
    let mut document = serde_json::to_value(Messages::openapi())?;
    let mut definitions = document["components"]["schemas"].take();
    refer_to_definitions(&mut definitions);
    Ok(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Messages between a Millrace controller and an agent",
        "description": "Each WebSocket text is one of these; `ToAgent` goes to the agent, `ToController` to the controller. \
            `DesiredState` is the payload of a signed document.",
        "oneOf": [{"$ref": "#/$defs/ToAgent"}, {"$ref": "#/$defs/ToController"}],
        "$defs": definitions,
    }))
}

fn refer_to_definitions(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(target)) = object.get_mut("$ref") {
                *target = target.replace("#/components/schemas/", "#/$defs/");
            }
            object.values_mut().for_each(refer_to_definitions);
        }
        Value::Array(items) => items.iter_mut().for_each(refer_to_definitions),
        _ => {}
    }
}
