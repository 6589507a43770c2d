//! Following the events of a relay (`GET /v1/events`), which are server-sent: lines of `name: value`, an empty one behind each event.

use anyhow::anyhow;
use millrace_proto::admin::{Event, Problem};

use crate::run::Failure;

use super::Client;

/// Whether more is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followed {
    /// It is.
    On,
    /// It is not.
    Enough,
}

/// Longest event, in bytes: a content with a long name and long links is far below.
const EVENT_BYTES_MAX: usize = 4 << 20;

impl Client {
    /// Calls `each` with every event, until it has enough or the relay goes away. `heard` is the name of the last one: what came
    /// after it is told first, and it is kept up.
    ///
    /// # Errors
    /// A relay that is away, or refuses.
    pub(crate) fn follow(
        &self,
        heard: &mut Option<String>,
        mut each: impl FnMut(Event) -> Followed,
    ) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let mut request = self.http.get("http://relay/v1/events");
            if let Some(heard) = heard.as_ref() {
                request = request.header("Last-Event-ID", heard);
            }
            let mut response = request.send().await.map_err(|error| self.silent(error))?;
            if !response.status().is_success() {
                let status = response.status();
                let said = response.bytes().await.unwrap_or_default();
                let problem =
                    serde_json::from_slice::<Problem>(&said).ok().and_then(|problem| problem.detail);
                return Err(
                    anyhow!("{}", problem.unwrap_or_else(|| format!("the relay answers {status}"))).into()
                );
            }
            let mut parser = Parser::default();
            while let Some(chunk) = response.chunk().await.map_err(|error| self.silent(error))? {
                parser.push(&chunk)?;
                while let Some((id, event)) = parser.next() {
                    if id.is_some() {
                        *heard = id;
                    }
                    if event.is_some_and(|event| each(event) == Followed::Enough) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }
}

/// Takes events out of what arrives.
#[derive(Debug, Default)]
struct Parser(Vec<u8>);

impl Parser {
    fn push(&mut self, chunk: &[u8]) -> anyhow::Result<()> {
        if self.0.len() + chunk.len() > EVENT_BYTES_MAX {
            return Err(anyhow!("an event of the relay is longer than {EVENT_BYTES_MAX} bytes"));
        }
        self.0.extend_from_slice(chunk);
        Ok(())
    }

    /// The next event that is whole: its name, and what it says, if that is understood.
    fn next(&mut self) -> Option<(Option<String>, Option<Event>)> {
        let end = self.0.windows(2).position(|pair| pair == b"\n\n")?;
        let text = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0.drain(..end + 2);
        let field = |name: &str| {
            let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            values.next().map(|value| value.strip_prefix(' ').unwrap_or(value).to_owned())
        };
        Some((field("id"), field("data").and_then(|data| serde_json::from_str(&data).ok())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_any_pieces() {
        let stream = b": ping\n\nevent: removed\nid: a-1\ndata: {\"event\":\"removed\",\"id\":\"x\"}\n\ndata: {\"event\":\"new kind\"}\n\n";
        for size in 1..stream.len() {
            let (mut parser, mut heard) = (Parser::default(), Vec::new());
            for chunk in stream.chunks(size) {
                parser.push(chunk).unwrap();
                heard.extend(std::iter::from_fn(|| parser.next()));
            }
            let removed = (Some("a-1".to_owned()), Some(Event::Removed { id: "x".to_owned() }));
            assert_eq!(heard, [(None, None), removed, (None, None)]);
        }
    }

    #[test]
    fn an_event_without_an_end_is_given_up() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; 1 << 20];
        assert!((0..4).all(|_| parser.push(&chunk).is_ok()));
        assert!(parser.push(&chunk).is_err());
    }
}
