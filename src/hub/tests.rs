//! What only the inside of a hub shows: queues, tickets, messages, and that nothing is left over.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use super::Direction;
use super::core::Hub;
use super::park::Kill;
use super::reactor::{Seen, Trust};
use super::reason::Reason;
use super::record::Wake;
use super::run_queue::RunQueue;
use crate::hub::hub;
use crate::{joinall, sleep, spawn, spawn_later, with_timeout, yield_now};

/// Nothing here takes that long.
const LONG: Duration = Duration::from_secs(60);

/// What the parks of these tests wait for.
const REASON: Reason = Reason::Named("a test");

/// Runs a test with a hub of its own.
fn with_hub<T: Send + 'static>(test: fn(&'static Hub) -> T) -> T {
    std::thread::spawn(move || test(hub())).join().unwrap()
}

/// Parks until a message comes, or for `timeout`.
fn park_for(hub: &Hub, timeout: Duration) -> Wake {
    hub.park(REASON, Kill::Deferred, Some(Instant::now() + timeout))
}

#[test]
fn the_run_queue_is_first_in_first_out() {
    let queue = RunQueue::new();
    let records: Vec<_> = (0..10).map(|_| crate::greenlet::main_record()).collect();
    assert!(queue.is_empty() && queue.pop().is_none());
    for length in [1, 2, 10] {
        records[..length].iter().for_each(|record| queue.push(record.clone()));
        assert!(!queue.is_empty());
        assert!(queue.pop().unwrap().is(&records[0]));
        queue.push(records[0].clone());
        for n in (1..length).chain([0]) {
            assert!(queue.pop().unwrap().is(&records[n]));
        }
        assert!(queue.is_empty() && queue.pop().is_none());
    }
    assert!(records.iter().all(|record| record.is_last()));
}

#[test]
fn timeouts_and_sleeps_that_are_over_leave_no_timers() {
    with_hub(|hub| {
        for _ in 0..10_000 {
            with_timeout(LONG, || ()).unwrap();
        }
        assert!(hub.timers.borrow().is_empty());
        with_timeout(LONG, || with_timeout(LONG, yield_now)).unwrap().unwrap();
        assert!(with_timeout(Duration::ZERO, || sleep(LONG)).is_err());
        let killed: Vec<_> = (0..100)
            .map(|n| match n % 3 {
                0 => spawn(|| sleep(LONG)),
                1 => spawn(|| with_timeout(LONG, || sleep(LONG)).unwrap()),
                _ => spawn_later(LONG, || ()),
            })
            .collect();
        yield_now();
        assert!(hub.timers.borrow().len() > 100);
        killed.iter().for_each(|greenlet| greenlet.kill_nowait());
        joinall(&killed);
        assert!(spawn(|| ()).join_timeout(LONG));
        assert!(hub.timers.borrow().is_empty());
    });
}

#[test]
fn finished_greenlets_leave_the_table() {
    with_hub(|hub| {
        let greenlets: Vec<_> = (0..100).map(|_| spawn(yield_now)).collect();
        assert_eq!(hub.greenlets.borrow().len(), 101);
        joinall(&greenlets);
        spawn_later(LONG, || ()).kill();
        assert_eq!(hub.greenlets.borrow().len(), 1);
        assert_eq!(hub.stacks.stats().in_use, 0);
    });
}

#[test]
fn a_ticket_ends_one_park_only() {
    with_hub(|hub| {
        let ticket = hub.ticket();
        let copy = ticket.clone();
        assert!(ticket.is(&copy));
        spawn(move || hub.unpark(ticket, Wake::Closed));
        assert_eq!(park_for(hub, LONG), Wake::Closed);
        hub.unpark(copy, Wake::Closed);
        assert_eq!(park_for(hub, Duration::from_millis(1)), Wake::TimedOut);
    });
}

#[test]
fn a_wake_up_that_overtakes_its_park_ends_it_at_once() {
    with_hub(|hub| {
        let ticket = hub.ticket();
        hub.unpark(ticket.clone(), Wake::Ready);
        assert_eq!(park_for(hub, LONG), Wake::Ready);
        hub.unpark(ticket, Wake::Ready);
        assert_eq!(park_for(hub, Duration::from_millis(1)), Wake::TimedOut);
    });
}

#[test]
fn an_overtaking_wake_up_does_not_outlive_an_interrupted_park() {
    with_hub(|hub| {
        let interrupted = with_timeout(Duration::from_millis(1), || {
            std::thread::sleep(Duration::from_millis(2));
            (0..200).for_each(|_| _ = catch_unwind(yield_now)); // Until the hub looks at the clock.
            hub.unpark(hub.ticket(), Wake::Ready);
            assert_eq!(hub.park(REASON, Kill::Delivered, None), Wake::Expired);
        });
        assert!(interrupted.is_err());
        assert_eq!(park_for(hub, Duration::from_millis(1)), Wake::TimedOut);
    });
}

#[test]
fn a_deferred_park_is_no_kill_point() {
    with_hub(|hub| {
        let greenlet = spawn(move || {
            assert_eq!(park_for(hub, Duration::from_millis(3)), Wake::TimedOut);
            assert_eq!(hub.park(REASON, Kill::Delivered, None), Wake::Killed);
            7
        });
        yield_now();
        greenlet.kill_nowait();
        assert_eq!(greenlet.get().unwrap(), 7);
        assert!(hub.timers.borrow().is_empty());
    });
}

#[test]
fn messages_of_other_threads_end_parks() {
    with_hub(|hub| {
        hub.remote_waits.set(1);
        for round in 0..500 {
            let ticket = hub.remote_ticket();
            let thread = std::thread::spawn(move || Hub::unpark_remote(None, ticket));
            if round % 2 == 0 {
                thread.join().unwrap(); // The message comes before the park.
            }
            // Without a deadline: a lost wake-up would hang.
            assert_eq!(hub.park(REASON, Kill::Deferred, None), Wake::Ready);
        }
    });
}

#[test]
fn messages_arrive_in_their_order() {
    with_hub(|hub| {
        let mine = hub.remote_ticket();
        let tickets: Vec<_> =
            (0..100).map(|generation| super::remote::RemoteTicket { generation, ..mine }).collect();
        let posted = tickets.clone();
        let post = move || {
            posted.into_iter().for_each(|ticket| {
                assert!(super::remote::Mailbox::post(ticket));
            })
        };
        std::thread::spawn(post).join().unwrap();
        assert!(hub.mailbox.has_messages() && !hub.mailbox.fall_asleep());
        let mut taken = Vec::new();
        hub.mailbox.take(|ticket| taken.push(ticket));
        assert_eq!(taken, tickets);
        assert!(!hub.mailbox.has_messages() && hub.mailbox.fall_asleep());
        hub.mailbox.wake_up();
    });
}

#[test]
fn stale_messages_are_dropped() {
    with_hub(|hub| {
        let ticket = hub.remote_ticket();
        Hub::unpark_remote(Some(hub), ticket);
        assert_eq!(park_for(hub, LONG), Wake::Ready);
        // Its park is over.
        std::thread::spawn(move || Hub::unpark_remote(None, ticket)).join().unwrap();
        assert_eq!(park_for(hub, Duration::from_millis(1)), Wake::TimedOut);
        // Its greenlet has ended, and another one lives in its place.
        let ended = spawn(move || hub.remote_ticket()).get().unwrap();
        let next = spawn(move || park_for(hub, Duration::from_millis(1)));
        yield_now();
        Hub::unpark_remote(None, ended);
        assert_eq!(next.get().unwrap(), Wake::TimedOut);
    });
    // Its hub has ended, and another one may have its mailbox.
    let ended = with_hub(Hub::remote_ticket);
    for _ in 0..3 {
        let wake = std::thread::spawn(move || {
            let hub = hub();
            assert!(!Hub::unpark_remote(None, ended));
            park_for(hub, Duration::from_millis(1))
        });
        assert_eq!(wake.join().unwrap(), Wake::TimedOut);
    }
}

#[test]
fn events_of_an_fds_former_owner_are_dropped() {
    with_hub(|hub| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (fd, reactor) = (reader.as_raw_fd(), &hub.reactor);
        reactor.arm(fd, Direction::Read, Trust::Owned).unwrap();
        writer.write_all(&[1]).unwrap();
        // The event is on its way when the fd gets a new owner.
        reactor.closing(fd, |_, _| unreachable!("nobody waits"));
        reactor.take_edge(fd, Direction::Read);
        reactor.poll(Some(Duration::ZERO), |_, _| unreachable!("nobody waits"));
        assert!(!reactor.take_edge(fd, Direction::Read));
        // The new owner's own are not.
        reactor.arm(fd, Direction::Read, Trust::Owned).unwrap();
        reactor.poll(Some(Duration::ZERO), |_, _| unreachable!("nobody waits"));
        assert!(reactor.take_edge(fd, Direction::Read));
    });
}

#[test]
fn closing_an_fd_wakes_all_its_waiters() {
    with_hub(|hub| {
        let (reader, _writer) = std::io::pipe().unwrap();
        let fd = reader.as_raw_fd();
        let wait =
            move || super::hub().wait_fd(fd, Direction::Read, Trust::Owned, Seen::Nothing, None);
        let waiters = [spawn(wait), spawn(wait), spawn(wait)];
        let killed = spawn(move || _ = (wait(), yield_now()));
        yield_now();
        assert_eq!((hub.reactor.waiters(fd), hub.reactor.waiting()), (4, 4));
        killed.kill();
        assert_eq!((hub.reactor.waiters(fd), hub.reactor.waiting()), (3, 3));
        hub.reactor.closing(fd, |ticket, wake| hub.unpark(ticket, wake));
        for waiter in waiters {
            assert_eq!(waiter.get().unwrap(), Wake::Closed);
        }
        assert_eq!((hub.reactor.waiters(fd), hub.reactor.waiting()), (0, 0));
    });
}
