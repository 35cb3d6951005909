//! Which counters have been seen: the sliding window of RFC 4303 3.4.3.

/// Counters that it looks back.
const SIZE: u64 = 1024;
const WORDS: usize = 16;

/// What was seen on one path.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// One more than the highest counter seen.
    next: u64,
    /// A bit for each of the last [`SIZE`] counters.
    seen: [u64; WORDS],
}

impl Window {
    /// Whether this counter was not seen yet, as far as can be known.
    pub(super) fn is_new(&self, counter: u64) -> bool {
        counter >= self.next || (self.next - counter <= SIZE && self.seen[word(counter)] & bit(counter) == 0)
    }

    /// It was seen, and is authentic.
    pub(super) fn mark(&mut self, counter: u64) {
        if counter >= self.next {
            if counter - self.next >= SIZE {
                self.seen = [0; WORDS];
            } else {
                (self.next..=counter).for_each(|passed| self.seen[word(passed)] &= !bit(passed));
            }
            self.next = counter.saturating_add(1);
        }
        self.seen[word(counter)] |= bit(counter);
    }
}

fn word(counter: u64) -> usize {
    usize::try_from(counter % SIZE / 64).expect("below 16")
}

fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whatever_is_older_than_the_window_is_refused() {
        let mut window = Window::default();
        window.mark(5_000);
        assert!(window.is_new(5_001) && !window.is_new(5_000));
        assert!(window.is_new(5_001 - SIZE) && !window.is_new(5_000 - SIZE));
    }

    proptest! {
        /// Against a set of all that was seen: nothing twice, and nothing young refused.
        #[test]
        fn nothing_is_taken_twice_and_nothing_young_is_refused(
            steps in prop::collection::vec(prop_oneof![0..3_000_u64, 0..100_000_u64, Just(u64::MAX)], 1..300),
        ) {
            let (mut window, mut seen, mut highest) = (Window::default(), HashSet::new(), None);
            for counter in steps {
                let young = highest.is_none_or(|highest: u64| counter > highest || highest - counter < SIZE - 1);
                let taken = window.is_new(counter);
                prop_assert!(!taken || !seen.contains(&counter));
                // Saturation makes the very last counter one that is taken again and again; nobody gets so far.
                prop_assert!(taken || !young || seen.contains(&counter) || highest == Some(u64::MAX));
                if taken && counter != u64::MAX {
                    window.mark(counter);
                    seen.insert(counter);
                    highest = highest.max(Some(counter));
                }
            }
        }
    }
}
