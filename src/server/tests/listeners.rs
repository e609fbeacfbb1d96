//! Several listeners, and several threads that accept from each.

use super::support::{Application, Client, public, settings, start_settings, status};

#[test]
fn every_listener_accepts_however_few_connections_there_may_be_for_the_threads() {
    let application = Application::echo();
    let limits = "[server]\nthreads = 3\nmax_connections = 2\n";
    let mut settings = settings(&(public(application.address, "") + limits));
    let second = settings.listeners[0].clone();
    settings.listeners.push(second);
    let gateway = start_settings(settings);
    let addresses = gateway.running.addresses();
    for round in 0..6 {
        for address in [addresses[0], addresses[0], addresses[1]] {
            let mut client = Client::connect(address);
            client.send("GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n");
            assert_eq!(status(&client.read_all()), 200, "round {round}, {address}");
        }
    }
}
