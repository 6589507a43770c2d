//! Bodies of small errors as problem documents (RFC 9457), written without allocation.

use std::fmt::{self, Write as _};

use super::response::{Cursor, HeadTooLong, reason_phrase};

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Writes `{"type":"about:blank","title":…,"status":…,"detail":…}` and tells its length in bytes.
///
/// # Errors
/// [`HeadTooLong`] when `buffer` does not hold it.
pub fn write(buffer: &mut [u8], status: u16, detail: &str) -> Result<usize, HeadTooLong> {
    let mut out = Cursor { buffer, length: 0, overflow: false };
    let (title, detail) = (JsonString(reason_phrase(status)), JsonString(detail));
    out.format(format_args!(
        "{{\"type\":\"about:blank\",\"title\":{title},\"status\":{status},\"detail\":{detail}}}\n"
    ));
    if out.overflow { Err(HeadTooLong) } else { Ok(out.length) }
}

/// A string in JSON's spelling (RFC 8259 §7).
struct JsonString<'a>(&'a str);

impl fmt::Display for JsonString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_ascii_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_json_whatever_its_detail() {
        let mut buffer = [0; 256];
        let detail = "a \"path\\\" with\r\n\u{1} ä";
        let length = write(&mut buffer, 404, detail).expect("fits");
        let value: serde_json::Value = serde_json::from_slice(&buffer[..length]).expect("JSON");
        assert_eq!(value["detail"], detail);
        assert_eq!(value["status"], 404);
        assert_eq!(value["title"], "Not Found");
        assert_eq!(write(&mut buffer[..20], 404, ""), Err(HeadTooLong));
    }
}
