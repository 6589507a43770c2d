//! Which networks a relay answers at all: `allow` and `deny`, in order, of which the first that fits decides, as in nginx and most
//! packet filters. Who fits none is allowed, so a list of those who may ends in `deny all`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::NETWORKS_MAX;
use crate::admin::caps::Cidr;

/// The rules, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    allow: bool,
    /// `None` is everybody.
    network: Option<Cidr>,
}

impl Rules {
    /// Reads `allow` or `deny`, each with a network or `all`.
    ///
    /// # Errors
    /// The first that is not understood, and why; more than [`NETWORKS_MAX`].
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let rules: Vec<Rule> = lines.into_iter().map(str::parse).collect::<Result<_, _>>()?;
        match rules.len() > NETWORKS_MAX {
            true => Err(format!("more than {NETWORKS_MAX} rules")),
            false => Ok(Rules(rules)),
        }
    }

    /// Whether clients with this address are answered.
    #[must_use]
    #[inline]
    pub fn allow(&self, address: IpAddr) -> bool {
        // Asked with every request, and most relays have none.
        self.0.is_empty() || self.decide(address)
    }

    fn decide(&self, address: IpAddr) -> bool {
        let fits = |rule: &&Rule| rule.network.is_none_or(|network| network.contains(address));
        self.0.iter().find(fits).is_none_or(|rule| rule.allow)
    }

    /// The rules, as they are written.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(Rule::to_string)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.allow { "allow" } else { "deny" };
        match self.network {
            Some(network) => write!(f, "{verb} {network}"),
            None => write!(f, "{verb} all"),
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (verb, network) = (words.next(), words.next());
        let (allow, network) = match (verb, network, words.next()) {
            (Some("allow"), Some(network), None) => (true, network),
            (Some("deny"), Some(network), None) => (false, network),
            _ => return Err(format!("`{text}`: write `allow` or `deny`, and a network or `all`")),
        };
        let network = if network == "all" { None } else { Some(network.parse()?) };
        Ok(Rule { allow, network })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &[&str], address: &str, allowed: bool) {
        let rules = Rules::parse(rules.iter().copied()).unwrap();
        assert_eq!(rules.allow(address.parse().unwrap()), allowed, "{address} by {rules:?}");
        let lines: Vec<_> = rules.lines().collect();
        assert_eq!(Rules::parse(lines.iter().map(String::as_str)), Ok(rules));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        check(&[], "192.0.2.1", true);
        check(&["deny all"], "192.0.2.1", false);
        let campus = &["deny 10.0.0.7", "allow 10.0.0.0/8", "allow 2001:db8::/32", "deny all"];
        check(campus, "10.0.0.7", false);
        check(campus, "10.0.0.8", true);
        check(campus, "::ffff:10.0.0.7", false);
        check(campus, "::ffff:10.0.0.8", true);
        check(campus, "2001:db8::1", true);
        check(campus, "2001:db9::1", false);
        // The order counts, not the length of the prefix.
        check(&["allow 10.0.0.0/8", "deny 10.0.0.7"], "10.0.0.7", true);
        check(&["deny 10.0.0.0/8"], "192.0.2.1", true);
    }

    #[test]
    fn half_a_rule_is_none() {
        for bad in ["", "allow", "10.0.0.0/8", "deny 10.0.0.1/8", "permit all", "deny all now", "allow any"] {
            assert!(Rules::parse([bad]).is_err(), "{bad:?}");
        }
    }
}
