//! A FIFO of waiters, first come first served.
//!
//! Pure data. Nearly every list has one waiter at a time, so the first one is kept inline and
//! costs no allocation.

use std::collections::VecDeque;

/// Waiters in the order in which they came.
#[derive(Debug)]
pub(crate) struct WaitList<T> {
    /// The waiter that came first. None only if `rest` is empty as well.
    first: Option<T>,
    /// The others. None until there was a second one; boxed because most lists never need it.
    #[expect(clippy::box_collection, reason = "one word in every fd's entry instead of four")]
    rest: Option<Box<VecDeque<T>>>,
}

impl<T> WaitList<T> {
    /// An empty list.
    pub(crate) const fn new() -> WaitList<T> {
        WaitList { first: None, rest: None }
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Adds a waiter behind all others.
    #[inline]
    pub(crate) fn push(&mut self, waiter: T) {
        if self.first.is_none() {
            self.first = Some(waiter);
        } else {
            self.push_behind(waiter);
        }
    }

    #[inline(never)]
    fn push_behind(&mut self, waiter: T) {
        self.rest.get_or_insert_default().push_back(waiter);
    }

    /// Takes the waiter that came first.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let next = self.pop_behind();
        std::mem::replace(&mut self.first, next)
    }

    /// Takes every waiter there is now, in order.
    #[inline(always)]
    pub(crate) fn drain(&mut self, mut each: impl FnMut(T)) {
        while let Some(waiter) = self.first.take() {
            if self.rest.is_some() {
                self.first = self.pop_behind();
            }
            each(waiter);
        }
    }

    #[inline(never)]
    fn pop_behind(&mut self) -> Option<T> {
        self.rest.as_mut()?.pop_front()
    }

    /// Removes every waiter for which `gone` is true; the others keep their order.
    pub(crate) fn remove(&mut self, mut gone: impl FnMut(&T) -> bool) {
        if let Some(rest) = &mut self.rest {
            rest.retain(|waiter| !gone(waiter));
        }
        if self.first.as_ref().is_some_and(gone) {
            self.pop();
        }
    }

    /// The waiters in order.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::WaitList;

    fn drain(list: &mut WaitList<u32>) -> Vec<u32> {
        std::iter::from_fn(|| list.pop()).collect()
    }

    #[test]
    fn first_come_first_served() {
        let mut list = WaitList::new();
        assert!(list.is_empty());
        for waiter in 0..5 {
            list.push(waiter);
        }
        assert_eq!(list.iter().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(drain(&mut list), [0, 1, 2, 3, 4]);
        assert!(list.is_empty());
    }

    #[test]
    fn draining_takes_all_in_order() {
        let mut list = WaitList::new();
        list.drain(|_: u32| unreachable!());
        for waiter in 0..3 {
            list.push(waiter);
        }
        let mut drained = Vec::new();
        list.drain(|waiter| drained.push(waiter));
        assert_eq!(drained, [0, 1, 2]);
        assert!(list.is_empty());
    }

    #[test]
    fn removal_keeps_the_order_of_the_others() {
        for gone in 0..5 {
            let mut list = WaitList::new();
            for waiter in 0..5 {
                list.push(waiter);
            }
            list.remove(|&waiter| waiter == gone);
            let expected: Vec<u32> = (0..5).filter(|&waiter| waiter != gone).collect();
            assert_eq!(drain(&mut list), expected);
        }
    }

    #[test]
    fn a_list_that_was_emptied_can_be_filled_again() {
        let mut list = WaitList::new();
        list.push(1);
        list.push(2);
        list.remove(|_| true);
        assert!(list.is_empty());
        list.push(3);
        assert_eq!(drain(&mut list), [3]);
    }
}
