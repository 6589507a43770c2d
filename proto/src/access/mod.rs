//! Who may have a content: everybody, clients in some networks, or whoever brings a signed URL. In files and documents it is a list of
//! the ways in, `["signed", "10.0.0.0/8"]`; any of them suffices. [`rules`] says which networks a relay answers at all.

pub mod rules;
pub mod signature;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::admin::caps::Cidr;

/// Networks that one content, or the rules of a relay, may name.
pub const NETWORKS_MAX: usize = 1024;

/// Who may have a content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    #[default]
    Public,
    /// Who comes by one of the ways in; without any, nobody.
    Restricted(Ways),
}

/// The ways to a content that is not for everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ways {
    /// By a URL that was signed, over HTTP.
    pub signed: bool,
    /// From these networks, over every protocol.
    pub networks: Vec<Cidr>,
}

impl Access {
    /// By signed URLs alone.
    #[must_use]
    pub fn signed() -> Self {
        Access::Restricted(Ways { signed: true, networks: Vec::new() })
    }

    /// Whether everybody may.
    #[must_use]
    pub fn is_public(&self) -> bool {
        matches!(self, Access::Public)
    }

    /// Whether a client with this address may, whatever it brings.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        match self {
            Access::Public => true,
            Access::Restricted(ways) => ways.networks.iter().any(|network| network.contains(address)),
        }
    }

    /// Whether a signed URL is a way in.
    #[must_use]
    pub fn takes_signatures(&self) -> bool {
        matches!(self, Access::Restricted(Ways { signed: true, .. }))
    }

    /// The ways in, as they are written.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let (word, networks) = match self {
            Access::Public => (Some("public"), &[][..]),
            Access::Restricted(ways) => (ways.signed.then_some("signed"), ways.networks.as_slice()),
        };
        word.map(str::to_owned).into_iter().chain(networks.iter().map(Cidr::to_string))
    }

    /// Reads the ways in.
    ///
    /// # Errors
    /// A word that is neither `public`, `signed` nor a network; `public` beside others; more than [`NETWORKS_MAX`].
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let (mut public, mut ways) = (false, Ways::default());
        for word in words {
            match word {
                "public" => public = true,
                "signed" => ways.signed = true,
                network => {
                    let network = network.parse().map_err(|_| {
                        format!("`{network}` is neither `public`, `signed` nor a network such as 10.1.0.0/16")
                    })?;
                    if !ways.networks.contains(&network) {
                        ways.networks.push(network);
                    }
                }
            }
        }
        match (public, ways == Ways::default()) {
            (true, true) => Ok(Access::Public),
            (true, false) => {
                Err("`public` stands alone: everybody is more than any of the others".to_owned())
            }
            _ if ways.networks.len() > NETWORKS_MAX => Err(format!("more than {NETWORKS_MAX} networks")),
            _ => Ok(Access::Restricted(ways)),
        }
    }
}

/// The ways in behind commas; `none` where there is none.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words().collect::<Vec<_>>() {
            none if none.is_empty() => f.write_str("none"),
            words => f.write_str(&words.join(",")),
        }
    }
}

impl FromStr for Access {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "none" => Ok(Access::Restricted(Ways::default())),
            words => Access::from_words(words.split(',').map(str::trim)),
        }
    }
}

impl Serialize for Access {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.words())
    }
}

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        Access::from_words(words.iter().map(String::as_str)).map_err(de::Error::custom)
    }
}

/// Reads a field that may be absent. `null` is refused: it could be taken for everybody as well as for nobody.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Access>, D::Error> {
    Access::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, address: &str, admitted: bool) {
        let access: Access = text.parse().unwrap();
        assert_eq!(access.admits(address.parse().unwrap()), admitted, "{address} by {text}");
        let json = serde_json::to_string(&access).unwrap();
        assert_eq!(serde_json::from_str::<Access>(&json).unwrap(), access, "{json}");
        assert_eq!(access.to_string().parse(), Ok(access));
    }

    #[test]
    fn each_way_in_is_enough() {
        check("public", "192.0.2.1", true);
        check("none", "192.0.2.1", false);
        check("signed", "127.0.0.1", false);
        check("signed,10.0.0.0/8", "10.9.9.9", true);
        check("10.0.0.0/8,2001:db8::/32", "2001:db8::1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        // An IPv4 client on a socket of both families.
        check("10.0.0.0/8", "::ffff:10.9.9.9", true);
        check("10.0.0.0/8", "::ffff:11.9.9.9", false);
        check("::/0", "10.0.0.1", false);
    }

    #[test]
    fn what_is_not_understood_opens_nothing() {
        for bad in ["", "public,signed", "publik", "10.0.0.1/8", "signed,", "public,10.0.0.0/8", "all"] {
            assert!(bad.parse::<Access>().is_err(), "{bad:?}");
        }
        for bad in [r#""public""#, r#"["private"]"#, "null", r#"["public","signed"]"#, "{}"] {
            assert!(serde_json::from_str::<Access>(bad).is_err(), "{bad}");
        }
        use crate::admin::ChangeContent;
        assert_eq!(serde_json::from_str::<ChangeContent>("{}").unwrap(), ChangeContent::default());
        assert!(serde_json::from_str::<ChangeContent>(r#"{"access":null}"#).is_err());
        let many: Vec<_> = (0..=NETWORKS_MAX).map(|number| format!("2001:db8::{number:x}")).collect();
        assert!(Access::from_words(many.iter().map(String::as_str)).is_err());
        assert!(Access::from_words(many[1..].iter().map(String::as_str)).is_ok());
    }

    #[test]
    fn nothing_said_is_public_and_an_empty_list_is_nobody() {
        assert_eq!(Access::default(), Access::Public);
        assert_eq!(serde_json::from_str::<Access>("[]").unwrap().to_string(), "none");
        assert_eq!(serde_json::to_string(&Access::signed()).unwrap(), r#"["signed"]"#);
        assert!(Access::signed().takes_signatures() && !Access::Public.takes_signatures());
    }
}
