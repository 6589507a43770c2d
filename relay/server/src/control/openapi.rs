//! The OpenAPI document: what every operation has in common is added here, so that a handler's annotation says what is particular to it.

use millrace_proto::admin::Problem;
use millrace_proto::http::problem::MEDIA_TYPE;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder};

/// Names of contents in a path: an id, a v1 infohash, a v2 infohash.
const NAME_PATTERN: &str = "^([a-z2-7]{25}[aeimquy4]|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})$";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Millrace relay, admin API",
        version = "1",
        description = "JSON over HTTP on the relay's Unix socket, for root, the relay's own user and members of the socket's group (`millrace`). \
            Unknown keys and parameters are refused, and every refusal is a problem document (RFC 9457) that says what to do.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "http://relay", description = "Behind the Unix socket: `curl --unix-socket /run/millrace/admin.sock http://relay/v1/status`.")),
    tags(
        (name = "contents", description = "What the relay has, and what is to be done with it."),
        (name = "caps", description = "Limits on bandwidth, changed while transfers run."),
        (name = "relay", description = "The relay as a whole."),
    ),
    components(schemas(Problem)),
)]
struct Base;

/// The document before any operation.
pub(super) fn base() -> OpenApi {
    Base::openapi()
}

/// Adds what follows from an operation's shape: the content that its path names, and what is refused for its body, its parameters,
/// and whoever asks.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            complete_operation(path, operation);
        }
    }
    document
}

fn complete_operation(path: &str, operation: &mut Operation) {
    if path.contains("{id}") {
        let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some(NAME_PATTERN));
        let id = ParameterBuilder::new()
            .name("id")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some("Id of the content, or either infohash."))
            .schema(Some(schema));
        operation.parameters.get_or_insert_default().push(id.build().into());
        refuse(operation, "404", "There is no such content.");
    }
    if operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
        refuse(operation, "400", "A parameter or the body is not understood; the answer names what.");
    }
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.required = Some(Required::True);
        refuse(operation, "400", "A parameter or the body is not understood; the answer names what.");
        refuse(operation, "408", "The body did not arrive in time.");
        refuse(operation, "413", "The body is too long, or nested too deep.");
        refuse(operation, "415", "The body is not JSON.");
    }
    refuse(operation, "403", "Whoever asks may not administrate this relay.");
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.as_str() >= "400"
        {
            *response = problem(&response.description);
        }
    }
}

fn refuse(operation: &mut Operation, status: &str, description: &str) {
    let responses = &mut operation.responses.responses;
    responses.entry(status.to_owned()).or_insert_with(|| problem(description).into());
}

fn problem(description: &str) -> Response {
    ResponseBuilder::new()
        .description(description)
        .content(MEDIA_TYPE, Content::new(Some(Ref::from_schema_name("Problem"))))
        .build()
}
