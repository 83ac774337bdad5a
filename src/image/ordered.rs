//! Work by many threads, results in the order of the jobs.
//!
//! In: jobs, and what to do with one. Out: their results, one after another,
//! to the calling thread. Workers go on while earlier results wait, up to a
//! bound, so that nobody waits for the slowest of a batch: on a machine that
//! does other things as well, each such wait costs a turn of the scheduler.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What the workers and the taker share.
struct Desk<I, R> {
    state: Mutex<State<I, R>>,
    /// A result arrived, or none will.
    arrived: Condvar,
    /// A result was taken, or no further job is given out.
    taken: Condvar,
}

struct State<I, R> {
    jobs: I,
    /// Number of the job that is given out next.
    next: usize,
    /// Number of the result that is taken next.
    wanted: usize,
    results: BTreeMap<usize, R>,
    /// Workers that may still bring results.
    working: usize,
    /// No further job is given out: there is none, or nobody wants its result.
    stopped: bool,
}

/// Gives the result of `work` for each of `jobs` to `take`, in order. At most
/// `ahead` jobs are begun before their turn.
///
/// # Errors
///
/// The first error of `take`; no further job is then begun.
pub(super) fn map<J, R, E>(
    jobs: impl Iterator<Item = J> + Send,
    threads: NonZeroUsize,
    ahead: usize,
    work: impl Fn(J) -> R + Sync,
    mut take: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E>
where
    R: Send,
{
    let desk = Desk {
        state: Mutex::new(State {
            jobs,
            next: 0,
            wanted: 0,
            results: BTreeMap::new(),
            working: threads.get(),
            stopped: false,
        }),
        arrived: Condvar::new(),
        taken: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.get() {
            scope.spawn(|| {
                let _presence = Presence(&desk);
                while let Some((number, job)) = desk.next_job(ahead) {
                    desk.bring(number, work(job));
                }
            });
        }
        let _stop = Stop(&desk);
        while let Some(result) = desk.next_result() {
            take(result)?;
        }
        Ok(())
    })
}

impl<J, I: Iterator<Item = J>, R> Desk<I, R> {
    fn lock(&self) -> MutexGuard<'_, State<I, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_job(&self, ahead: usize) -> Option<(usize, J)> {
        let state = self.lock();
        let full = |state: &mut State<I, R>| !state.stopped && state.next > state.wanted + ahead;
        let state = self.taken.wait_while(state, full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            return None;
        }
        let Some(job) = state.jobs.next() else {
            state.stopped = true;
            self.taken.notify_all();
            return None;
        };
        state.next += 1;
        Some((state.next - 1, job))
    }

    fn bring(&self, number: usize, result: R) {
        let mut state = self.lock();
        state.results.insert(number, result);
        if number == state.wanted {
            self.arrived.notify_one();
        }
    }

    /// `None` when all workers left and nothing is there in order.
    fn next_result(&self) -> Option<R> {
        let state = self.lock();
        let missing = |state: &mut State<I, R>| {
            state.working > 0 && !state.results.contains_key(&state.wanted)
        };
        let state = self.arrived.wait_while(state, missing);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let number = state.wanted;
        let result = state.results.remove(&number)?;
        state.wanted += 1;
        self.taken.notify_one();
        Some(result)
    }
}

/// A worker; gone when it ends. When it dies, the others leave too: its
/// result would be waited for.
struct Presence<'a, J, I: Iterator<Item = J>, R>(&'a Desk<I, R>);

impl<J, I: Iterator<Item = J>, R> Drop for Presence<'_, J, I, R> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.working -= 1;
        state.stopped |= std::thread::panicking();
        self.0.taken.notify_all();
        self.0.arrived.notify_one();
    }
}

/// Tells the workers to stop when the taker leaves.
struct Stop<'a, J, I: Iterator<Item = J>, R>(&'a Desk<I, R>);

impl<J, I: Iterator<Item = J>, R> Drop for Stop<'_, J, I, R> {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.taken.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn threads(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).expect("some")
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        for count in [1, 2, 7] {
            for ahead in [0, 1, 20] {
                let mut all = Vec::new();
                let work = |job: usize| {
                    std::thread::sleep(std::time::Duration::from_micros(job as u64 * 7 % 50));
                    job * job
                };
                let done: Result<(), Infallible> = map(0..200, threads(count), ahead, work, |n| {
                    all.push(n);
                    Ok(())
                });
                assert_eq!(done, Ok(()));
                assert_eq!(all, (0..200).map(|n| n * n).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn workers_do_not_run_far_ahead() {
        let begun = AtomicUsize::new(0);
        let mut taken = 0;
        let work = |_| begun.fetch_add(1, Ordering::SeqCst);
        let done: Result<(), Infallible> = map(0..500, threads(3), 10, work, |_| {
            taken += 1;
            let ahead = begun.load(Ordering::SeqCst) - taken;
            assert!(ahead <= 11, "{ahead} jobs begun before their turn");
            Ok(())
        });
        assert_eq!((done, taken), (Ok(()), 500));
    }

    #[test]
    fn an_error_stops_the_work() {
        let begun = AtomicUsize::new(0);
        let work = |job| {
            begun.fetch_add(1, Ordering::SeqCst);
            job
        };
        let take = |job| if job == 5 { Err("five") } else { Ok(()) };
        assert_eq!(map(0..1_000_000, threads(2), 4, work, take), Err("five"));
        assert!(begun.load(Ordering::SeqCst) < 20);
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_worker_that_dies_does_not_hang_the_rest() {
        let work = |job: usize| assert_ne!(job, 30, "dead");
        let _done: Result<(), Infallible> = map(0..100, threads(2), 4, work, |()| Ok(()));
    }
}
