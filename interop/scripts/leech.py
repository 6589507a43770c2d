#!/usr/bin/env python3
"""Downloads one torrent with libtorrent and ends with 0 once every byte asked for has been verified.

Nothing but the given torrent's trackers, web seeds and the named peers is contacted: no DHT, no local discovery, no
port mapping.
"""

import argparse
import sys
import time

import libtorrent as lt


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help=".torrent file or magnet link")
    parser.add_argument("--into", required=True, help="folder to download into")
    parser.add_argument("--peer", action="append", default=[], metavar="HOST:PORT", help="connect to this peer")
    parser.add_argument("--pieces", help="only these pieces, such as 0,4095,4096")
    parser.add_argument("--protocol", choices=["v1", "v2"], help="of a hybrid torrent, ask for this swarm only")
    parser.add_argument("--encrypted", action="store_true", help="connect by message stream encryption only, be the stream plain or not")
    parser.add_argument("--timeout", type=float, default=110, help="seconds until it gives up")
    return parser.parse_args()


def session(options):
    policy = lt.enc_policy.pe_forced if options.encrypted else lt.enc_policy.pe_enabled
    return lt.session({
        "out_enc_policy": int(policy),
        "listen_interfaces": "0.0.0.0:0",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "allow_multiple_connections_per_ip": True,
        "min_reconnect_time": 1,
        "urlseed_wait_retry": 1,
        "alert_mask": lt.alert.category_t.error_notification | lt.alert.category_t.status_notification,
    })


def job(options):
    if options.source.startswith("magnet:"):
        parameters = lt.parse_magnet_uri(options.source)
    else:
        parameters = lt.add_torrent_params()
        parameters.ti = lt.torrent_info(options.source)
    parameters.save_path = options.into
    if options.protocol and options.source.startswith("magnet:"):
        kept = getattr(parameters.info_hashes, options.protocol)
        parameters.info_hashes = lt.info_hash_t(kept)
    return parameters


# What libtorrent 2.0 says of a few magnet links in a hundred to a hybrid, with any seed: v2 hashes came while a piece that is right by its v1 hash
# waited to be written, and it takes such a piece for missing (`torrent::add_hashes`). It leaves all its peers, and asks them again a minute later.
# Not with a .torrent, which has the hashes; 2.1 goes on without v1.
CONTRADICTION = "v1 and v2 hashes do not describe the same data"


def recover(handle, message):
    """Does what a person would: check again, and go on. Anything but the one known mistake of old versions is fatal."""
    old = tuple(int(part) for part in lt.version.split(".")[:2]) < (2, 1)
    if not (old and CONTRADICTION in message):
        sys.exit(f"error: {message}")
    print(f"libtorrent {lt.version}: {message}; checked again", file=sys.stderr, flush=True)
    handle.clear_error()
    handle.force_recheck()
    handle.resume()


def have(handle, wanted):
    status = handle.status()
    if status.errc.value() != 0:
        recover(handle, status.errc.message())
        return False
    if not status.has_metadata:
        return False
    if wanted is None:
        return status.is_seeding or status.is_finished
    return all(handle.have_piece(piece) for piece in wanted)


def main():
    options = arguments()
    ses = session(options)
    handle = ses.add_torrent(job(options))
    wanted = None
    if options.pieces:
        wanted = [int(piece) for piece in options.pieces.split(",")]
        priorities = [0] * handle.torrent_file().num_pieces()
        for piece in wanted:
            priorities[piece] = 7
        handle.prioritize_pieces(priorities)
    deadline = time.monotonic() + options.timeout
    reminded = 0.0
    while not have(handle, wanted):
        now = time.monotonic()
        if now > deadline:
            status = handle.status()
            sys.exit(f"timeout: {status.state}, {status.progress:.1%}, {status.num_peers} peers")
        if now > reminded:
            reminded = now + 2
            for peer in options.peer:
                host, port = peer.rsplit(":", 1)
                handle.connect_peer((host, int(port)))
        for alert in ses.pop_alerts():
            print(alert.message(), flush=True)
        time.sleep(0.05)
    # What is verified may still be in the write cache.
    handle.flush_cache()
    ses.pause()
    del handle, ses
    print("done", flush=True)


main()
