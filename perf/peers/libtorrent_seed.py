"""Seeds one torrent with libtorrent until it is killed: libtorrent_seed.py TORRENT FOLDER ADDRESS CONNECTIONS

The preset is libtorrent's own for seeding fast. What is changed beside it: TCP alone and in the clear, no discovery of any kind, nobody
choked, few disk threads (all share the cores that were given), and no more than a megabyte buffered for each peer, which stays in the
processor's cache better than the preset's three.
"""

import sys
import time

import libtorrent as lt


def settings(address, connections):
    chosen = lt.high_performance_seed()
    chosen.update({
        "listen_interfaces": address,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "in_enc_policy": 2,  # pe_disabled
        "out_enc_policy": 2,
        "allow_multiple_connections_per_ip": True,
        "unchoke_slots_limit": -1,
        "choking_algorithm": 0,  # fixed slots, of which there is no end
        "connections_limit": connections,
        "aio_threads": 2,
        "send_buffer_watermark": 1 << 20,
        "alert_mask": lt.alert.category_t.error_notification,
    })
    return chosen


def main():
    torrent, folder, address, connections = sys.argv[1:5]
    session = lt.session(settings(address, int(connections)))
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = folder
    parameters.flags = lt.torrent_flags.seed_mode
    handle = session.add_torrent(parameters)
    handle.set_max_uploads(-1)
    handle.set_max_connections(int(connections))
    while True:
        time.sleep(0.5)
        for alert in session.pop_alerts():
            print(alert, flush=True)


main()
