//! What a person sees on the terminal when the server is up: where it listens, and what to paste where.

use std::net::SocketAddr;

/// Returns the text for these addresses (ports known) and the place where the data lies; `host_name` stands for the
/// machine where it listens on all its addresses.
pub fn text(version: &str, addresses: &[SocketAddr], data: &str, host_name: &str) -> String {
    let urls: Vec<String> = addresses.iter().map(|address| url(*address, host_name)).collect();
    let first = urls.first().cloned().unwrap_or_default();
    let listening: Vec<String> = addresses.iter().map(|address| format!("http://{address}")).collect();
    format!(
        "Bellrock {version} is up.\n\
         \n\
         \x20 listens on     {}\n\
         \x20 data lies in   {}\n\
         \n\
         \x20 Prometheus, in prometheus.yml (other agents take the same URL):\n\
         \n\
         remote_write:\n\
         \x20 - url: {first}/api/v1/write\n\
         \n\
         \x20 Grafana: a data source of type Prometheus with the URL   {first}\n\
         \x20 A shell: curl '{first}/api/v1/query?query=up'\n\
         \n",
        listening.join(", "),
        data,
    )
}

/// The addresses among these that other machines can reach.
pub fn reachable(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    addresses.iter().copied().filter(|address| !address.ip().to_canonical().is_loopback()).collect()
}

/// The URL under which another program reaches this address.
fn url(address: SocketAddr, host_name: &str) -> String {
    match address.ip().is_unspecified() {
        true => format!("http://{host_name}:{}", address.port()),
        false => format!("http://{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_text_has_what_to_paste() {
        let text = text("0.1.0", &addresses(&["127.0.0.1:9009"]), "/srv/data", "nas");
        for part in [
            "http://127.0.0.1:9009\n",
            "/srv/data",
            "remote_write:\n  - url: http://127.0.0.1:9009/api/v1/write\n",
            "curl 'http://127.0.0.1:9009/api/v1/query?query=up'",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_wildcard_is_reached_by_the_machines_name() {
        let text = text("0.1.0", &addresses(&["[::]:9009", "127.0.0.1:1"]), "/d", "nas");
        assert!(text.contains("http://[::]:9009, http://127.0.0.1:1\n"), "{text}");
        assert!(text.contains("url: http://nas:9009/api/v1/write"), "{text}");
    }

    #[test]
    fn loopback_in_every_spelling_is_not_reachable() {
        let all = addresses(&["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "[::]:1", "10.0.0.1:1"]);
        assert_eq!(reachable(&all), addresses(&["[::]:1", "10.0.0.1:1"]));
    }
}
