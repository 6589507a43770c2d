//! From when to when a certificate is valid, out of its DER (RFC 5280 §4.1): enough of it to skip what comes before.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
/// `[0]`, which the version is in.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The two times, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Not valid before this.
    pub not_before: i64,
    /// Not valid after this.
    pub not_after: i64,
}

impl Validity {
    /// Of a certificate; none where it does not tell.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Validity> {
        let (tag, certificate, _) = element(certificate)?;
        let (to_be_signed_tag, mut fields, _) = element(certificate)?;
        if [tag, to_be_signed_tag] != [SEQUENCE; 2] {
            return None;
        }
        // Version where there is one, serial number, signature algorithm, issuer.
        let has_version = fields.first() == Some(&VERSION);
        for _ in 0..3 + usize::from(has_version) {
            fields = element(fields)?.2;
        }
        let (tag, times, _) = element(fields)?;
        let (not_before_tag, not_before, rest) = element(times)?;
        let (not_after_tag, not_after, _) = element(rest)?;
        (tag == SEQUENCE).then_some(())?;
        Some(Validity {
            not_before: time(not_before_tag, not_before)?,
            not_after: time(not_after_tag, not_after)?,
        })
    }

    /// What is wrong with it at `now`.
    #[must_use]
    pub fn warning(&self, now: i64) -> Option<String> {
        if now > self.not_after {
            Some(format!("expired on {}", day(self.not_after)))
        } else if now < self.not_before {
            Some(format!("not valid before {}", day(self.not_before)))
        } else {
            None
        }
    }

    /// The last moment, for people.
    #[must_use]
    pub fn until(&self) -> String {
        day(self.not_after)
    }
}

fn day(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "an unknown day".to_owned(), |time| time.to_string())
}

/// The first element of DER: its tag, what is in it, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, which is of 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let century = match tag {
        UTC_TIME if text.get(..2)? < "50" => "20",
        UTC_TIME => "19",
        GENERALIZED_TIME => "",
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", format!("{century}{text}")).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: (i32, u8, u8), until: (i32, u8, u8)) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let expected = (params.not_before.unix_timestamp(), params.not_after.unix_timestamp());
        let certificate = params.self_signed(&key).unwrap();
        let validity = Validity::of(certificate.der()).unwrap();
        assert_eq!((validity.not_before, validity.not_after), expected);
        for bytes in 0..certificate.der().len() {
            // Cut anywhere it is unknown, and no panic.
            assert_eq!(Validity::of(&certificate.der()[..bytes]), None);
        }
    }

    #[test]
    fn both_ways_to_write_a_time_are_read() {
        check((1975, 1, 1), (2049, 12, 31));
        check((2024, 2, 29), (4096, 1, 1));
    }

    #[test]
    fn a_warning_has_the_date() {
        let validity = Validity { not_before: 86_400, not_after: 2 * 86_400 };
        assert_eq!(validity.warning(86_400), None);
        assert_eq!(validity.warning(2 * 86_400 + 1).unwrap(), "expired on 1970-01-03T00:00:00Z");
        assert_eq!(validity.warning(0).unwrap(), "not valid before 1970-01-02T00:00:00Z");
    }
}
