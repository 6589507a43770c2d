//! The command line. What is declared here is what `--help` shows and what the README is tested against; values are checked in
//! [`crate::config`], so that a flag and a key of the configuration file fail with the same words.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A relay for big files: pulls once from an origin, serves everybody over HTTP and BitTorrent.
#[derive(Debug, Parser)]
#[command(name = "millrace-relay", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pull what is named and serve it, until told to stop
    Serve(Box<ServeArgs>),
    /// Show the whole job on this machine: an origin, a relay, and downloads from it, checked byte by byte
    Demo,
    /// Add a content to the running relay
    Add(AddArgs),
    /// Remove a content and its files from the running relay
    Remove(ContentArgs),
    /// Stop pulling and serving a content, keeping what is there
    Pause(ContentArgs),
    /// Go on with a paused content
    Resume(ContentArgs),
    /// Keep a content whatever the capacity
    Pin(ContentArgs),
    /// Let a content go when room is needed
    Unpin(ContentArgs),
    /// Show the relay and its contents, or one content
    Status(StatusArgs),
    /// Show or set who may have a content
    Access(AccessArgs),
    /// Sign a URL, so that whoever has it may fetch what it names
    Sign(SignArgs),
    /// Make keys for signed URLs
    Keys(KeysArgs),
    /// Show or set limits on bandwidth
    Caps(CapsArgs),
    /// Take no new connections, finish running answers, then stop
    Drain(ClientArgs),
    /// Have the program that is on the disk now take the running relay over, without a drop
    Upgrade(ClientArgs),
    /// Hash everything stored again and report damage
    Verify(VerifyArgs),
    /// Show what this kernel and its limits allow, what will be used, and what to change
    Doctor(DoctorArgs),
    /// Watch the relay live: rates, connections, caps, shards, pulls, events
    Top(TopArgs),
}

/// `serve`: every flag is also a key of the configuration file; the flag wins.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// An http(s) URL, a local file or folder, or a .torrent (file or URL); each is pulled and served
    #[arg(value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of what is stored [default: $STATE_DIRECTORY, or ./millrace-store]
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Most bytes to store, such as 500GB [default: unlimited]
    #[arg(long, value_name = "SIZE")]
    pub capacity: Option<String>,
    /// Bytes of the store's file system that stay free for others, such as 10GB [default: 0]
    #[arg(long, value_name = "SIZE")]
    pub keep_free: Option<String>,
    /// Address for HTTP [default: [::]:8080, or 0.0.0.0:8080 where there is no IPv6]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Address for HTTPS, or `off`; it takes a certificate and its key [default: off]
    #[arg(long, value_name = "ADDR")]
    pub https: Option<String>,
    /// Certificate of HTTPS (PEM), with those between it and a root behind it [default: tls-certificate in
    /// $CREDENTIALS_DIRECTORY]
    #[arg(long, value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM) [default: tls-key in $CREDENTIALS_DIRECTORY]
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Address for BitTorrent, and for its UDP tracker [default: [::]:6881, or 0.0.0.0:6881 where there is no IPv6]
    #[arg(long, value_name = "ADDR")]
    pub bt: Option<String>,
    /// What links, magnets and web seeds name [default: http://, the first address of this machine that is not loopback, and the
    /// HTTP port]
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Most bytes per second to send in all, such as 2Gbit/s; 0 pauses. What `caps set` set since holds instead, until this is
    /// changed [default: unlimited]
    #[arg(long, value_name = "RATE")]
    pub egress: Option<String>,
    /// Socket for administration [default: $MILLRACE_ADMIN, $RUNTIME_DIRECTORY/admin.sock, or admin.sock in the store]
    #[arg(long, value_name = "SOCKET")]
    pub admin: Option<PathBuf>,
    /// Address for the pages for people and the index, `data` for where HTTP is served, or `off` [default: data]
    #[arg(long, value_name = "ADDR")]
    pub pages: Option<String>,
    /// Address for Prometheus metrics, or `off` [default: 127.0.0.1:9185]
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<String>,
    /// Cores to use, such as 0-3,6; one shard runs on each [default: every core this process may use]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<String>,
    /// How to talk to the kernel: auto, uring or epoll [default: auto: io_uring, or epoll where not every shard gets a ring]
    #[arg(long, value_name = "KIND")]
    pub io: Option<String>,
    /// How pulls write files: auto, uring or pwrite [default: auto: pwrite, which takes less CPU]
    #[arg(long, value_name = "KIND")]
    pub ingest_io: Option<String>,
    /// Congestion control of what is sent, such as bbr or cubic [default: the system's]
    #[arg(long, value_name = "NAME")]
    pub congestion: Option<String>,
    /// How to write the log: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Check flags and configuration file, print what would be used, and exit
    #[arg(long)]
    pub check_config: bool,
}

/// How a command finds the running relay and shows its answer.
#[derive(Debug, Clone, Default, Args)]
pub struct ClientArgs {
    /// Socket of the relay [default: $MILLRACE_ADMIN, $RUNTIME_DIRECTORY/admin.sock, /run/millrace/admin.sock, or
    /// ./millrace-store/admin.sock, the first that there is]
    #[arg(long, value_name = "SOCKET")]
    pub admin: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// An http(s) URL, a local file or folder, a .torrent (file or URL) or a metalink
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// Name to serve it under [default: the source's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// A .torrent whose hashes to verify against
    #[arg(long, value_name = "FILE")]
    pub metainfo: Option<PathBuf>,
    /// SHA-256 of the whole file, 64 hexadecimal digits
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    /// Another URL of the same bytes, to pull from as well and to tell clients of; may be given several times
    #[arg(long = "mirror", value_name = "URL")]
    pub mirrors: Vec<String>,
    /// Keep it whatever the capacity
    #[arg(long)]
    pub pin: bool,
    /// Who may have it: public, none, or a list of ways in such as signed,10.0.0.0/8 of which any suffices [default: `default` in
    /// `[access]` of the relay's configuration, which is public]
    #[arg(long, value_name = "WAYS")]
    pub access: Option<String>,
    /// Only who has a signed URL may have it, as --access signed
    #[arg(long, conflicts_with = "access")]
    pub private: bool,
    /// Where and how.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// A command about one content.
#[derive(Debug, Args)]
pub struct ContentArgs {
    /// Content id, or either infohash
    #[arg(value_name = "ID")]
    pub id: String,
    /// Where and how.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `access`.
#[derive(Debug, Args)]
pub struct AccessArgs {
    /// Content id, or either infohash
    #[arg(value_name = "ID")]
    pub id: String,
    /// Who may have it from now on: public, none, or a list of ways in such as signed,10.0.0.0/8 [default: it is shown]
    #[arg(value_name = "WAYS")]
    pub ways: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// URL of a file; one that ends in / stands for every file below it
    #[arg(value_name = "URL")]
    pub url: String,
    /// File of keys, of which the last signs
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,
    /// Id of another key of the file to sign with
    #[arg(long, value_name = "ID")]
    pub key: Option<String>,
    /// How long the URL is good, such as 90m, 24h or 7d
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub expires: String,
    /// Network that the client has to be in [default: any]
    #[arg(long, value_name = "CIDR")]
    pub network: Option<String>,
}

/// `keys`.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// What to do
    #[command(subcommand)]
    pub action: KeysAction,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// Print a new key, as a line for the file of keys
    Generate {
        /// Its name, which URLs carry [default: today's date]
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Content id, or either infohash [default: the relay and all contents]
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print one frame as text and exit, as without a terminal; with --json one sample
    #[arg(long)]
    pub once: bool,
    /// Where and how; JSON is one sample a second.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `caps`.
#[derive(Debug, Args)]
pub struct CapsArgs {
    /// Show, set or unset [default: show]
    #[command(subcommand)]
    pub action: Option<CapsAction>,
    /// Where and how.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What to do with caps.
#[derive(Debug, Subcommand)]
pub enum CapsAction {
    /// Show what holds, whose it is and until when; or one layer
    Show(CapsShowArgs),
    /// Change caps while transfers run, without a disconnect
    Set(CapsSetArgs),
    /// Remove caps: what they name is unlimited
    Unset(CapsUnsetArgs),
}

/// `caps show`.
#[derive(Debug, Args)]
pub struct CapsShowArgs {
    /// What to show: effective, local or controller
    #[arg(long, value_name = "LAYER", default_value = "effective")]
    pub layer: String,
    /// Where and how.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `caps set`.
#[derive(Debug, Args)]
pub struct CapsSetArgs {
    /// KEY=VALUE, such as egress.total=500Mbit/s, egress.http=40%, origin.connections=8, origin.volume.day=10TB,
    /// egress.networks.10.1.0.0/16=50MB/s, contents.ID.priority=5 or line_rate=10Gbit/s; `none` is unlimited, 0 pauses; a whole list
    /// such as schedule=[…] is JSON
    #[arg(value_name = "KEY=VALUE", required = true)]
    pub settings: Vec<String>,
    /// Whose caps to change: local or controller
    #[arg(long, value_name = "LAYER", default_value = "local")]
    pub layer: String,
    /// Where and how.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `caps unset`.
#[derive(Debug, Args)]
pub struct CapsUnsetArgs {
    /// KEY as for `set`, or a whole part such as schedule, origin or contents
    #[arg(value_name = "KEY", required = true)]
    pub keys: Vec<String>,
    /// Whose caps to change: local or controller
    #[arg(long, value_name = "LAYER", default_value = "local")]
    pub layer: String,
    /// Where and how.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Folder of what is stored [default: $STATE_DIRECTORY, or ./millrace-store]
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Where and how, when a relay is running on the store.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_and_command_has_help() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
