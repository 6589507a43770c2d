//! HTTP dates (RFC 9110 §5.6.7) as seconds since 1970: formatted without allocation, parsed in all three formats.

use std::time::{Duration, UNIX_EPOCH};

/// The last second that an IMF-fixdate can name: the end of the year 9999.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;

/// An IMF-fixdate, such as `Sun, 06 Nov 1994 08:49:37 GMT`. Format it once a second and copy it into each head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpDate {
    unix_seconds: u64,
    text: [u8; 29],
}

impl HttpDate {
    /// Formats seconds since 1970; later than the year 9999 is that year's last second.
    #[must_use]
    pub fn from_unix(unix_seconds: u64) -> Self {
        let unix_seconds = unix_seconds.min(UNIX_SECONDS_MAX);
        let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(unix_seconds));
        let mut text = [b' '; 29];
        // The format is 29 bytes long for every year of four digits, so the write cannot fall short.
        let written = std::io::Write::write_fmt(&mut &mut text[..], format_args!("{date}"));
        debug_assert!(written.is_ok());
        Self { unix_seconds, text }
    }

    /// The 29 bytes of the date.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 29] {
        &self.text
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn unix_seconds(&self) -> u64 {
        self.unix_seconds
    }
}

/// Parses an HTTP date into seconds since 1970; `None` when it is none or names a time before.
#[must_use]
pub fn parse(value: &[u8]) -> Option<u64> {
    let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    date.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_round_trip_in_every_format() {
        let date = HttpDate::from_unix(784_111_777);
        assert_eq!(date.as_bytes(), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(parse(date.as_bytes()), Some(784_111_777));
        assert_eq!(parse(b"Sunday, 06-Nov-94 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse(b"Sun Nov  6 08:49:37 1994"), Some(784_111_777));
        assert_eq!(parse(b"1994-11-06"), None);
        assert_eq!(parse(b"\xff"), None);
        assert_eq!(HttpDate::from_unix(u64::MAX).as_bytes(), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(HttpDate::from_unix(0).as_bytes(), b"Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
