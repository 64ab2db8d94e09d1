//! The same program, patched and unpatched: it must not be able to tell.
//!
//! Each scenario is a plain function over std and libc that writes down whatever it is told:
//! bytes, counts, errors, flags, but no times. It runs in a child process of its own that is not
//! patched, on OS threads; then in this process after `patch_all`, once on greenlets and once on
//! threads that have no hub. The transcripts must be equal. No scenario may write down anything
//! that depends on who comes first.

#[path = "../common/mod.rs"]
mod common;
mod descriptors;
mod locks;
mod names;
mod polling;
mod sleeping;
mod tcp;
mod tcp_connect;
mod tcp_ends;
mod udp;
mod unix;
mod vectors;
mod world;

use std::process::Command;
use std::time::Duration;

use common::Watchdog;
use world::{Transcript, World};

/// Makes a child process run its one scenario unpatched and print the transcript.
const UNPATCHED: &str = "GREENLING_TEST_UNPATCHED";

/// Comes before each line of a transcript that a child prints.
const MARK: &str = "transcript: ";

/// How long a scenario may take on a very busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A scenario.
type Scenario = fn(World, &mut Transcript);

/// Makes a test of each scenario.
macro_rules! scenarios {
    ($($module:ident: $($name:ident),* $(,)?;)*) => {
        $($(
            #[test]
            fn $name() {
                compare(stringify!($name), $module::$name);
            }
        )*)*

        /// Every scenario by name.
        const ALL: &[(&str, Scenario)] = &[$($((stringify!($name), $module::$name)),*),*];
    };
}

scenarios! {
    tcp: echo, echo_over_ipv6, read_timeout, write_timeout_sends_a_part, large_send_to_a_slow_reader,
        nonblocking_stream, nonblocking_through_a_duplicate, peek, wait_all, wait_all_ends_early,
        peek_and_wait_all, dont_wait, zero_bytes, clones_read_and_write, two_readers,
        urgent_data, truncating_receive, recvfrom_on_a_stream, buffered_lines, io_copy,
        socket_timeouts_can_be_read_back;
    tcp_connect: refused, refused_twice, connect_timeout, connect_with_a_send_timeout, unreachable,
        connected_already, bad_addresses, second_address_succeeds, error_of_a_failed_connect,
        flags_after_accept, accept_timeout, accept_without_waiting, accept_nonblocking_stream,
        accept_on_what_does_not_listen, accept_names, several_acceptors, listener_dropped,
        unconnected, unix_backlog_full;
    tcp_ends: reset_by_linger, reset_while_reading, write_after_peer_close, half_close,
        shutdown_while_reading, shutdown_write, shutdown_both, sigpipe_is_ignored,
        reset_while_writing;
    vectors: vectored, a_thousand_pieces, too_many_pieces, vectors_to_a_slow_reader,
        sendmsg_to_a_slow_reader, empty_vectors, bad_pointers, messages_wait_for_all;
    udp: datagrams, truncation, empty_datagrams, udp_timeout, udp_refused, udp_over_ipv6,
        udp_errors, udp_peek, udp_nonblocking, udp_two_at_a_time,
        udp_shutdown;
    unix: stream_pair, stream_by_path, abstract_names, datagram_truncation, datagram_peers,
        datagrams_to_a_slow_reader, connected_datagrams_to_a_slow_reader, records,
        fds_in_messages, truncated_control, socketpair_flags, unix_timeouts, vanished_peer, datagram_shutdown;
    descriptors: bad_fds, closed_fds, dup_over, duplicates, flags_of_fds, accept_flags, pipes,
        closed_ranges, files_are_no_sockets, replaced_while_connected;
    polling: poll_shapes, poll_wakes_on_data, poll_hang_ups, poll_many, poll_errors, ppoll_times,
        poll_and_connect, poll_of_a_bad_fd;
    sleeping: sleep_errors, sleeps_in_the_past, sleeps_return;
    names: numeric_names, refused_names, local_names;
    locks: mutex_across_sleeps, condvar_queue, condvar_timeouts, rwlock_across_sleeps,
        once_across_sleeps, barrier, poisoning, raw_futex;
}

/// Runs one scenario in each way and compares.
fn compare(name: &'static str, scenario: Scenario) {
    let _watchdog = Watchdog::new(name, LIMIT);
    if std::env::var_os(UNPATCHED).is_some() {
        let transcript = run(World::Threads, scenario);
        transcript.iter().for_each(|line| println!("\n{MARK}{line}"));
        return;
    }
    // Before this thread gets its hub: waiting for a child would hold it.
    let expected = unpatched(name);
    greenling::monkey::patch_all();
    let foreign = std::thread::spawn(move || run(World::Threads, scenario)).join().unwrap();
    let greenlet = greenling::spawn(move || run(World::Greenlets, scenario));
    let patched = greenlet.get().unwrap();
    assert_eq!(expected, patched, "unpatched, then patched");
    assert_eq!(expected, foreign, "unpatched, then patched on a thread without a hub");
}

/// A scenario's transcript.
fn run(world: World, scenario: Scenario) -> Vec<String> {
    let mut transcript = Transcript::default();
    scenario(world, &mut transcript);
    transcript.into_lines()
}

/// The transcript of an unpatched process.
fn unpatched(name: &str) -> Vec<String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(UNPATCHED, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} fails unpatched: {text}{errors}");
    text.lines().filter_map(|line| line.strip_prefix(MARK)).map(str::to_owned).collect()
}

/// All of them as greenlets of one thread at the same time see what each sees alone.
#[test]
fn all_at_once() {
    let _watchdog = Watchdog::new("all_at_once", 3 * LIMIT);
    greenling::monkey::patch_all();
    let greenlet = |scenario| greenling::spawn(move || run(World::Greenlets, scenario));
    let alone: Vec<_> =
        ALL.iter().map(|&(_, scenario)| greenlet(scenario).get().unwrap()).collect();
    let together: Vec<_> = ALL.iter().map(|&(_, scenario)| greenlet(scenario)).collect();
    for ((name, _), (alone, together)) in ALL.iter().zip(alone.into_iter().zip(together)) {
        assert_eq!(alone, together.get().unwrap(), "{name}: alone, then among all");
    }
}
