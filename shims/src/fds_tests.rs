//! Tests of the table of fds. Each uses numbers of its own that no real fd has.

use super::*;

#[test]
fn duplicates_share_a_description_until_the_last_is_forgotten() {
    let (first, second) = (900_000, 900_001);
    born(first, Kind::Tcp, false);
    duplicated(first, second);
    known(first).expect("born").set_nonblocking(true);
    assert!(known(second).expect("a duplicate").is_nonblocking());
    forget(first);
    assert!(known(first).is_none());
    assert!(known(second).expect("still open").is_nonblocking());
    forget(second);
    assert!(known(second).is_none());
}

#[test]
fn a_number_born_again_keeps_nothing() {
    let fd = 900_010;
    born(fd, Kind::Tcp, true);
    known(fd).expect("born").set_timeout(Direction::Read, 1, 0);
    born(fd, Kind::Datagram, false);
    let now = known(fd).expect("born again");
    assert_eq!(now.kind(), Kind::Datagram);
    assert!(!now.is_nonblocking());
    assert_eq!(now.patience(fd, Direction::Read), Patience::Until(None));
    forget(fd);
}

#[test]
fn numbers_out_of_the_table_are_never_known() {
    for fd in [-1, i32::MIN, i32::MAX, FDS_MAX as i32] {
        born(fd, Kind::Tcp, false);
        forget(fd);
        assert!(lookup(fd).is_none());
    }
}

#[test]
fn a_duplicate_of_an_unknown_fd_is_unknown() {
    let (old, new) = (900_020, 900_021);
    born(new, Kind::Tcp, false);
    duplicated(old, new);
    assert!(known(new).is_none());
}

#[test]
fn accepted_sockets_ask_for_a_timeout_only_if_the_listener_had_one() {
    let (listener, child) = (900_030, 900_031);
    born(listener, Kind::Tcp, false);
    accepted(child, known(listener).expect("born"), false);
    assert_eq!(known(child).expect("accepted").receive_timeout.load(Ordering::Relaxed), 0);
    known(listener).expect("born").set_timeout(Direction::Read, 5, 0);
    known(listener).expect("born").set_timeout(Direction::Read, 0, 0);
    accepted(child, known(listener).expect("born"), false);
    assert_eq!(known(child).expect("accepted").receive_timeout.load(Ordering::Relaxed), UNKNOWN);
    forget(listener);
    forget(child);
}

#[test]
fn timeouts_of_any_size_are_a_deadline_or_none() {
    let fd = 900_040;
    born(fd, Kind::Tcp, false);
    let description = known(fd).expect("born");
    description.set_timeout(Direction::Write, -1, 0);
    assert_eq!(description.patience(fd, Direction::Write), Patience::None);
    for seconds in [i64::MAX, i64::MAX / 1_000_000] {
        description.set_timeout(Direction::Write, seconds, 999_999);
        assert!(matches!(description.patience(fd, Direction::Write), Patience::Until(_)));
    }
    forget(fd);
}

#[test]
fn threads_that_share_numbers_leave_no_description_behind() {
    let (first, second) = (900_050, 900_051);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    born(first, Kind::Tcp, false);
                    duplicated(first, second);
                    forget(first);
                    forget(second);
                }
            });
        }
    });
    forget(first);
    forget(second);
    // A description that leaked, or was freed twice, would show as an index that is handed out
    // twice or never again.
    let mut taken: Vec<u32> = (0..64).map(|_| take(0, 0).expect("a description")).collect();
    taken.sort_unstable();
    taken.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1]));
    taken.into_iter().for_each(release);
}
