//! The hub's timers: a hierarchical timing wheel over deadlines in nanoseconds since the hub's
//! epoch.
//!
//! Every blocking call with a timeout is an insert and, nearly always, a cancel: both are O(1) and
//! touch one entry, its neighbours in a list and one slot. There is no clock here: time comes in as
//! a number, so that the tests need no sleep.
//!
//! # The wheel
//!
//! A `u64` is eleven digits of six bits. An entry's **level** is the highest digit in which its
//! deadline differs from `elapsed`, the time of the last [`Timers::expire`], and its **slot** in
//! that level is the deadline's digit there.
//!
//! ```text
//!   digit      10        9     ...      2        1        0
//!            +----+  +------+        +------+ +------+ +------+
//!   elapsed  |  0 |  |    0 |  ...   |   17 | |   40 | |    5 |
//!            +----+  +------+        +------+ +------+ +------+
//!            :    :  :      :        : same : :  40  : :    9 :   deadline A: level 0, slot  9
//!            :    :  :      :        : same : :  63  : :    2 :   deadline B: level 1, slot 63
//!            :    :  :      :        :   18 : :   0  : :   60 :   deadline C: level 2, slot 18
//!
//!   level 0    slots of  1 ns   [ . . . . e . . . A . . . . ]   e: the slot of elapsed itself,
//!   level 1    slots of 64 ns   [ . . . . . . . . . . . . B ]      for deadlines that are past
//!   level 2    slots of  4 us   [ . . . C . . . . . . . . . ]
//!     ...                               |
//!   level 5    slots of  1 s            v   a slot is a list of entries, first inserted first,
//!     ...                                   and a lower bound on their deadlines:
//!   level 10   slots of 36 y            head -> entry <-> entry <-> entry <- tail
//! ```
//!
//! A slot of level `l` spans as much time as all of level `l - 1`, and lies wholly after it. So the
//! order of time is: level 0 from its first slot to its last, then level 1, and so on, and the
//! earliest deadline is in the lowest occupied slot of the lowest occupied level. Unlike in
//! Varghese and Lauck's wheel no slot ever wraps round: in every level only slots after the digit
//! of `elapsed` are occupied, except for slot `e` above.
//!
//! When time moves on to `now`, let L be the highest digit in which `now` and the old `elapsed`
//! differ. Levels below L are over, and so are the slots of level L before the digit of `now`. The
//! slot *at* that digit is taken apart: what is due fires, what is not goes to lower levels. All
//! others keep their place, since no digit that placed them has changed. An entry is moved at most
//! ten times in its life, and most are cancelled before their first move.
//!
//! # The order in which timers fire
//!
//! By deadline, and for equal deadlines first inserted, first fired. No sequence number is needed
//! for that:
//!
//! 1. An entry's slot depends on its deadline and on `elapsed` only. So at any time **all entries
//!    with one deadline are in one list**. (Past deadlines share slot `e`; an equal one from before
//!    has fired, as all with deadline <= `elapsed` have.)
//! 2. An insert appends to that list, and a cancel changes no order, so there entries with equal
//!    deadlines are in the order of insertion.
//! 3. Taking a slot apart walks its list from head to tail and appends to lists that hold no entry
//!    with that deadline yet, by 1. So it keeps the order, and an entry inserted directly into such
//!    a list later comes after the moved ones.
//! 4. Slots are emptied in the order of time, and what one slot yields is sorted by deadline with a
//!    *stable* sort.
//!
//! Must never: call out, read a clock, or keep anything but the wheel. Expired values are handed
//! back in a vector, so whatever happens when they are woken finds the wheel whole.

use crate::slab::{Id, NIL, Slab};

/// Bits of a digit: 64 slots per level, so that one word says which are occupied.
const DIGIT_BITS: u32 = 6;
/// Slots of a level.
const SLOTS: usize = 1 << DIGIT_BITS;
/// Digits of a `u64`. The top one has four bits.
const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;
/// How many entries `cancel` looks at to make the bound of a slot exact again.
const REPAIR_STEPS_MAX: usize = 8;

/// The timers of a hub.
pub(crate) struct Timers<T> {
    /// All entries; the lists of the slots are indices into it. They are reused last in, first out.
    entries: Slab<Entry<T>>,
    /// The lists, by level and digit. Boxed, for they are 11 KiB.
    slots: Box<[[Slot; SLOTS]; LEVELS]>,
    /// For each level a bit for every slot that is not empty.
    occupied: [u64; LEVELS],
    /// The time of the last `expire`, which placed the entries: every entry is in the slot `place`
    /// says, always.
    elapsed: u64,
}

/// The name of a timer, with which it can be cancelled. It is stale once the timer has fired or was
/// cancelled, and then finds nothing; see [`Id`] for how long that holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimerKey(Id);

/// One timer: 40 bytes in the slab when `T` has 16.
struct Entry<T> {
    /// What `expire` or `cancel` hands back.
    value: T,
    /// When it is due.
    deadline: u64,
    /// The entry before it in its slot's list, or [`NIL`].
    previous: u32,
    /// The entry after it in its slot's list, or [`NIL`].
    next: u32,
}

/// One list of entries.
#[derive(Copy, Clone)]
struct Slot {
    /// The first entry, or [`NIL`].
    head: u32,
    /// The last entry, or [`NIL`].
    tail: u32,
    /// No deadline in the list is before this one. It is the earliest itself until that is
    /// cancelled out of a long list. It is a deadline that belongs into this slot even then, so
    /// that moving time on to it takes the slot apart. `u64::MAX` when the list is empty.
    earliest: u64,
}

impl Slot {
    /// A slot without entries.
    const EMPTY: Slot = Slot { head: NIL, tail: NIL, earliest: u64::MAX };
}

impl<T> Timers<T> {
    /// No timers, at time 0.
    pub(crate) fn new() -> Self {
        Timers {
            entries: Slab::new(),
            slots: Box::new([[Slot::EMPTY; SLOTS]; LEVELS]),
            occupied: [0; LEVELS],
            elapsed: 0,
        }
    }

    /// How many timers are set.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no timer is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sets a timer. A deadline in the past is due at the next [`Timers::expire`].
    pub(crate) fn insert(&mut self, deadline: u64, value: T) -> TimerKey {
        let id = self.entries.insert(Entry { value, deadline, previous: NIL, next: NIL });
        self.link(id.index(), deadline);
        TimerKey(id)
    }

    /// Unsets a timer and gives its value back, unless it has fired or was cancelled before.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let entry = self.entries.remove(key.0)?;
        self.unlink(&entry);
        Some(entry.value)
    }

    /// A time before which no timer is due; `None` without timers.
    ///
    /// It is the earliest deadline, but for one case: when that was cancelled while its slot held
    /// many others, it stays the bound. Whoever wakes up for it finds nothing due, but `expire`
    /// then takes that slot apart, so that the next bound is exact: a cancelled timer costs at most
    /// one wake-up for nothing, and most cost none.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let digit = self.occupied[level].trailing_zeros() as usize;
        Some(self.slots[level][digit].earliest)
    }

    /// Moves time on to `now` and appends the timers with `deadline <= now` to `due`, with their
    /// deadlines: in the order of deadlines, and for equal ones in the order of insertion. A `now`
    /// before the last one counts as the last one.
    ///
    /// There is no limit to how many: what is due is due, and to hand one out costs far less than
    /// to run whoever waits for it. The limit is on how many of those run between two polls.
    pub(crate) fn expire(&mut self, now: u64, due: &mut Vec<(u64, T)>) {
        let now = now.max(self.elapsed);
        let (top, digit_now) = place(now, self.elapsed);
        // Entries that are moved from here on are placed by the new time. The slots to empty are
        // known without it.
        self.elapsed = now;
        for level in 0..=top {
            let last = if level < top { SLOTS - 1 } else { digit_now };
            // In the slot of `now` itself, which is the last one to be emptied, are the only
            // entries not to be due. They agree with `now` in digit `top` and above, so they go to
            // levels that this loop has left behind.
            while let Some(digit) = first(self.occupied[level]).filter(|digit| *digit <= last) {
                self.empty(level, digit, due);
            }
        }
    }

    /// Empties a slot: hands out what is due at `elapsed` and places the rest anew.
    fn empty(&mut self, level: usize, digit: usize, due: &mut Vec<(u64, T)>) {
        let mut index = std::mem::replace(&mut self.slots[level][digit], Slot::EMPTY).head;
        self.occupied[level] &= !(1 << digit);
        let start = due.len();
        while index != NIL {
            let entry = self.entries.at_mut(index);
            let (deadline, next) = (entry.deadline, entry.next);
            if deadline <= self.elapsed {
                due.push((deadline, self.entries.remove_at(index).value));
            } else {
                entry.next = NIL;
                self.link(index, deadline);
            }
            index = next;
        }
        // Stable, as the order of equal deadlines is that of the list. Sleepers mostly come in the
        // order of their deadlines, and then this is one pass that finds nothing to do.
        due[start..].sort_by_key(|(deadline, _)| *deadline);
    }

    /// Appends an entry whose `next` is [`NIL`] to the list of its slot.
    fn link(&mut self, index: u32, deadline: u64) {
        let (level, digit) = place(deadline, self.elapsed);
        let slot = &mut self.slots[level][digit];
        let previous = std::mem::replace(&mut slot.tail, index);
        slot.earliest = slot.earliest.min(deadline);
        self.entries.at_mut(index).previous = previous;
        if previous == NIL {
            slot.head = index;
            self.occupied[level] |= 1 << digit;
        } else {
            self.entries.at_mut(previous).next = index;
        }
    }

    /// Takes an entry, which has left the slab already, out of the list of its slot.
    fn unlink(&mut self, entry: &Entry<T>) {
        let (level, digit) = place(entry.deadline, self.elapsed);
        let slot = &mut self.slots[level][digit];
        match entry.previous {
            NIL => slot.head = entry.next,
            previous => self.entries.at_mut(previous).next = entry.next,
        }
        match entry.next {
            NIL => slot.tail = entry.previous,
            next => self.entries.at_mut(next).previous = entry.previous,
        }
        if slot.head == NIL {
            *slot = Slot::EMPTY;
            self.occupied[level] &= !(1 << digit);
        } else if slot.earliest == entry.deadline || slot.head == slot.tail {
            let head = slot.head;
            if let Some(earliest) = self.earliest_of_few(head) {
                self.slots[level][digit].earliest = earliest;
            }
        }
    }

    /// The earliest deadline of a short list; `None` for a long one, which `cancel` has not the
    /// time to walk.
    fn earliest_of_few(&self, head: u32) -> Option<u64> {
        let (mut index, mut earliest) = (head, u64::MAX);
        for _ in 0..REPAIR_STEPS_MAX {
            let entry = self.entries.at(index);
            earliest = earliest.min(entry.deadline);
            index = entry.next;
            if index == NIL {
                return Some(earliest);
            }
        }
        None
    }
}

/// The level and the digit of the slot of a deadline. Past ones are placed as `elapsed` itself is:
/// level 0, and its digit there.
fn place(deadline: u64, elapsed: u64) -> (usize, usize) {
    let time = deadline.max(elapsed);
    // The lowest bit is set so that a time that differs in no digit gets the lowest level.
    let level = ((time ^ elapsed) | 1).ilog2() / DIGIT_BITS;
    let digit = (time >> (level * DIGIT_BITS)) as usize % SLOTS;
    (level as usize, digit)
}

/// The lowest bit that is set.
fn first(bits: u64) -> Option<usize> {
    (bits != 0).then(|| bits.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    impl<T> Timers<T> {
        /// What `expire` hands out, without the deadlines.
        fn expired(&mut self, now: u64) -> Vec<T> {
            let mut due = Vec::new();
            self.expire(now, &mut due);
            due.into_iter().map(|(_, value)| value).collect()
        }

        /// Walks the whole wheel and proves what the fields promise.
        fn check(&self) {
            let mut linked = 0;
            for (level, slots) in self.slots.iter().enumerate() {
                for (digit, slot) in slots.iter().enumerate() {
                    let (mut index, mut previous) = (slot.head, NIL);
                    while index != NIL {
                        let entry = self.entries.at(index);
                        assert_eq!(place(entry.deadline, self.elapsed), (level, digit));
                        assert_eq!(entry.previous, previous);
                        assert!(slot.earliest <= entry.deadline);
                        (previous, index) = (index, entry.next);
                        linked += 1;
                    }
                    assert_eq!(slot.tail, previous);
                    assert_eq!(self.occupied[level] >> digit & 1 == 1, slot.head != NIL);
                    match slot.head {
                        NIL => assert_eq!(slot.earliest, u64::MAX),
                        _ => assert_eq!(place(slot.earliest, self.elapsed), (level, digit)),
                    }
                }
            }
            assert_eq!(linked, self.len());
        }
    }

    /// Numbers that are the same in every run.
    struct Xorshift(u64);

    impl Xorshift {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, limit: u64) -> u64 {
            self.next() % limit
        }

        /// A span of time of any order of magnitude up to 2^`bits_max`, zero included.
        fn span(&mut self, bits_max: u64) -> u64 {
            let bits = self.below(bits_max + 1);
            self.next() & ((1 << bits) - 1)
        }
    }

    #[test]
    fn timers_fire_in_the_order_of_their_deadlines() {
        let mut timers = Timers::new();
        for deadline in [500, 3, 70, 1 << 40, 4096, 64, 63, 5000] {
            timers.insert(deadline, deadline);
        }
        assert_eq!(timers.expired(2), []);
        assert_eq!(timers.expired(64), [3, 63, 64]);
        assert_eq!(timers.expired(5000), [70, 500, 4096, 5000]);
        assert_eq!((timers.len(), timers.next_deadline()), (1, Some(1 << 40)));
        assert_eq!(timers.expired(u64::MAX), [1 << 40]);
        assert!(timers.is_empty());
        assert_eq!(timers.next_deadline(), None);
    }

    #[test]
    fn the_deadline_comes_with_the_value() {
        let mut timers = Timers::new();
        timers.insert(20, 'b');
        timers.insert(10, 'a');
        let mut due = vec![(99, 'z')];
        timers.expire(30, &mut due);
        assert_eq!(due, [(99, 'z'), (10, 'a'), (20, 'b')]);
    }

    #[test]
    fn equal_deadlines_fire_first_in_first_out() {
        let mut timers = Timers::new();
        let deadline = 1_000_000;
        // The value is the order of insertion. Others make the slots' lists unsorted.
        for value in 0..30 {
            timers.insert(deadline, value);
            timers.insert(deadline - 1 - value, 100);
            timers.insert(deadline + 1 + value, 100);
        }
        // Each step moves those from before to a lower level, where new ones go directly.
        for (step, now) in [500_000, 990_000, 999_900].into_iter().enumerate() {
            assert!(timers.expired(now).is_empty());
            (0..10).for_each(|more| _ = timers.insert(deadline, 30 + 10 * step as u64 + more));
            timers.check();
        }
        let fired = timers.expired(2 * deadline);
        let equal: Vec<u64> = fired.into_iter().filter(|value| *value < 100).collect();
        assert_eq!(equal, (0..60).collect::<Vec<u64>>());
    }

    #[test]
    fn past_deadlines_are_due_at_once_and_in_order() {
        let mut timers = Timers::new();
        timers.expired(1000);
        for (deadline, value) in [(1000, 'd'), (1001, 'e'), (3, 'b'), (0, 'a'), (3, 'c')] {
            timers.insert(deadline, value);
        }
        timers.check();
        assert!(timers.next_deadline().unwrap() <= 1000);
        assert_eq!(timers.expired(1000), ['a', 'b', 'c', 'd']);
        assert_eq!(timers.next_deadline(), Some(1001));
        let key = timers.insert(5, 'x');
        assert_eq!(timers.cancel(key), Some('x'));
        assert_eq!(timers.next_deadline(), Some(1001));
    }

    #[test]
    fn time_does_not_run_backwards() {
        let mut timers = Timers::new();
        timers.expired(1000);
        timers.insert(900, 'a');
        timers.insert(1001, 'b');
        assert_eq!(timers.expired(500), ['a']);
        timers.check();
        assert_eq!(timers.expired(1001), ['b']);
    }

    #[test]
    fn a_cancelled_timer_does_not_fire() {
        let mut timers = Timers::new();
        let keys: Vec<TimerKey> = (0..5).map(|value| timers.insert(100, value)).collect();
        // The head, the tail, one between, and then those beside it.
        for (left, value) in [(4, 0), (3, 4), (2, 2)] {
            assert_eq!(timers.cancel(keys[value]), Some(value));
            timers.check();
            assert_eq!(timers.len(), left);
        }
        assert_eq!(timers.expired(100), [1, 3]);
    }

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut timers = Timers::new();
        let cancelled = timers.insert(10, 'a');
        assert_eq!(timers.cancel(cancelled), Some('a'));
        assert_eq!(timers.cancel(cancelled), None);
        let fired = timers.insert(10, 'b');
        assert_eq!(timers.cancel(cancelled), None);
        assert_eq!(timers.expired(10), ['b']);
        let live = timers.insert(20, 'c');
        assert_eq!((timers.cancel(cancelled), timers.cancel(fired)), (None, None));
        assert_eq!(timers.cancel(live), Some('c'));
    }

    #[test]
    fn a_deadline_passes_through_all_levels() {
        for deadline in [u64::MAX, u64::MAX - 1, 1 << 63, 0x9249_2492_4924_9249] {
            let mut timers = Timers::new();
            let key = timers.insert(deadline, 0);
            assert_eq!(place(deadline, 0).0, LEVELS - 1);
            // Each step sets one more digit of the deadline, and one entry comes along.
            for level in (0..LEVELS as u32).rev() {
                let now = deadline >> (level * DIGIT_BITS) << (level * DIGIT_BITS);
                if now < deadline {
                    assert!(timers.expired(now).is_empty());
                    assert!(place(deadline, now).0 < level as usize);
                    timers.insert(deadline, LEVELS as u32 - level);
                    timers.check();
                    assert_eq!(timers.next_deadline(), Some(deadline));
                }
            }
            let count = timers.len();
            assert_eq!(timers.cancel(key), Some(0));
            let fired = timers.expired(deadline);
            assert_eq!(fired.len(), count - 1);
            assert!(fired.is_sorted());
            timers.check();
        }
    }

    #[test]
    fn the_end_of_time_is_a_time() {
        let mut timers = Timers::new();
        timers.insert(u64::MAX, 'b');
        assert_eq!(timers.next_deadline(), Some(u64::MAX));
        assert_eq!(timers.expired(u64::MAX - 1), []);
        timers.insert(u64::MAX - 1, 'a');
        assert_eq!(timers.expired(u64::MAX), ['a', 'b']);
        timers.insert(u64::MAX, 'c');
        timers.insert(0, 'd');
        assert_eq!(timers.expired(u64::MAX), ['d', 'c']);
    }

    #[test]
    fn the_next_deadline_of_few_timers_is_exact() {
        let mut random = Xorshift(7);
        for _ in 0..2000 {
            let mut timers = Timers::new();
            let mut live: Vec<(u64, TimerKey)> = Vec::new();
            for _ in 0..REPAIR_STEPS_MAX {
                let deadline = random.span(20);
                live.push((deadline, timers.insert(deadline, ())));
            }
            while !live.is_empty() {
                let earliest = live.iter().map(|(deadline, _)| *deadline).min();
                assert_eq!(timers.next_deadline(), earliest);
                let (_, key) = live.swap_remove(random.below(live.len() as u64) as usize);
                timers.cancel(key);
            }
        }
    }

    #[test]
    fn the_next_deadline_of_the_last_of_many_is_exact() {
        let mut timers = Timers::new();
        let keys: Vec<TimerKey> = (0..100).map(|value| timers.insert(1000 + value, ())).collect();
        keys[..99].iter().for_each(|key| _ = timers.cancel(*key));
        assert_eq!(timers.next_deadline(), Some(1099));
        // All of that in one slot, where the earliest goes first and leaves its bound behind.
        let keys: Vec<TimerKey> = (0..50).map(|value| timers.insert(1 << 30 | value, ())).collect();
        timers.cancel(keys[0]);
        keys[2..].iter().for_each(|key| _ = timers.cancel(*key));
        timers.expired(1099);
        assert_eq!(timers.next_deadline(), Some(1 << 30 | 1));
    }

    #[test]
    fn a_cancelled_deadline_costs_one_wake_up_at_most() {
        let mut timers = Timers::new();
        let second = 1_000_000_000;
        let early = timers.insert(30 * second, 0);
        (1..100).for_each(|value| _ = timers.insert(30 * second + value, value));
        timers.cancel(early);
        assert_eq!(timers.next_deadline(), Some(30 * second));
        assert!(timers.expired(30 * second).is_empty());
        assert_eq!(timers.next_deadline(), Some(30 * second + 1));
    }

    #[test]
    fn sleeping_to_the_next_deadline_arrives() {
        let mut random = Xorshift(11);
        for _ in 0..300 {
            let mut timers = Timers::new();
            let start = random.span(50);
            timers.expired(start);
            let mut live = BTreeMap::new();
            for value in 0..40 {
                let deadline = start + random.span(40);
                live.insert((deadline, value), timers.insert(deadline, value));
            }
            // The earliest ones go, which leaves bounds that no entry stands for any more.
            for _ in 0..random.below(39) {
                timers.cancel(live.pop_first().unwrap().1);
            }
            while let Some((deadline, _)) = live.keys().next().copied() {
                let mut steps = 0;
                let fired = loop {
                    steps += 1;
                    let bound = timers.next_deadline().unwrap();
                    assert!(bound <= deadline);
                    let fired = timers.expired(bound);
                    if !fired.is_empty() {
                        break fired;
                    }
                };
                assert!(steps <= 2, "the bound after a wake-up for nothing is exact");
                for value in fired {
                    assert_eq!(live.pop_first().unwrap().0, (deadline, value));
                }
            }
            assert!(timers.is_empty());
        }
    }

    /// The wheel and the plainest thing that does the same, side by side.
    #[derive(Default)]
    struct Model {
        live: BTreeMap<(u64, u64), TimerKey>,
        inserted: u64,
        keys: Vec<(u64, u64, TimerKey)>,
    }

    impl Model {
        fn insert(&mut self, timers: &mut Timers<(u64, u64)>, deadline: u64) {
            let name = (deadline, self.inserted);
            let key = timers.insert(deadline, name);
            self.live.insert(name, key);
            self.keys.push((name.0, name.1, key));
            self.inserted += 1;
        }

        fn cancel(&mut self, timers: &mut Timers<(u64, u64)>, which: u64) {
            if self.keys.is_empty() {
                return;
            }
            let (deadline, number, key) =
                self.keys.swap_remove((which % self.keys.len() as u64) as usize);
            let name = (deadline, number);
            assert_eq!(timers.cancel(key), self.live.remove(&name).map(|_| name));
        }

        fn expire(&mut self, timers: &mut Timers<(u64, u64)>, now: u64) {
            let later = self.live.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut self.live, later);
            assert_eq!(timers.expired(now), due.into_keys().collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_wheel_does_what_a_sorted_map_does() {
        // Miri is to run this too, and is slower by orders of magnitude.
        let operations = if cfg!(miri) { 500 } else { 40_000 };
        for (seed, bits_max) in [(1, 8), (2, 13), (3, 20), (4, 31), (5, 58)] {
            let mut random = Xorshift(seed);
            let (mut timers, mut model, mut now) = (Timers::new(), Model::default(), 0u64);
            for operation in 0..operations {
                match random.below(16) {
                    // Past ones, equal ones and ones of all magnitudes.
                    0 => model.insert(&mut timers, now.saturating_sub(random.span(bits_max))),
                    1..3 => model.insert(&mut timers, now.saturating_add(random.below(4))),
                    3..9 => model.insert(&mut timers, now.saturating_add(random.span(bits_max))),
                    9..14 => model.cancel(&mut timers, random.next()),
                    // Seldom to a deadline itself, else by a jump that fires a few.
                    14 => now = timers.next_deadline().map_or(now, |bound| bound.max(now)),
                    _ => now = now.saturating_add(random.span(bits_max - 3)),
                }
                if random.below(8) == 0 {
                    model.expire(&mut timers, now);
                }
                assert_eq!(timers.len(), model.live.len());
                match model.live.keys().next() {
                    Some((earliest, _)) => assert!(timers.next_deadline().unwrap() <= *earliest),
                    None => assert_eq!(timers.next_deadline(), None),
                }
                if operation % 64 == 0 {
                    timers.check();
                }
            }
            model.expire(&mut timers, u64::MAX);
            assert!(timers.is_empty());
        }
    }

    #[test]
    fn an_entry_takes_five_words() {
        assert_eq!(Slab::<Entry<[u64; 2]>>::PLACE_BYTES, 40);
    }
}
