//! Whether clauses can hold together, and which of them cannot.
//!
//! In: clauses over numbered variables, and a wish for the next decision. Out:
//! an assignment in which every clause holds and that follows the wishes, or
//! a set of given clauses that contradict each other.
//!
//! Source: J. P. Marques-Silva and K. A. Sakallah, "GRASP", 1996 (learning from
//! conflicts, first unique implication point); M. Moskewicz and others,
//! "Chaff", 2001 (two watched literals). Every index is that of a variable,
//! a literal or a clause made here.

use std::collections::BTreeSet;

/// Conflicts until it gives up.
const MAX_CONFLICTS: usize = 20_000;

/// A variable, or its opposite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Literal(usize);

impl Literal {
    pub(super) fn yes(variable: usize) -> Self {
        Self(2 * variable)
    }

    pub(super) fn no(variable: usize) -> Self {
        Self(2 * variable + 1)
    }

    pub(super) fn variable(self) -> usize {
        self.0 / 2
    }

    pub(super) fn is_yes(self) -> bool {
        self.0.is_multiple_of(2)
    }

    fn opposite(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The literals that hold, in the order in which they were found.
    Holds(Vec<Literal>),
    /// Numbers of given clauses that cannot hold together.
    Contradicts(Vec<usize>),
    /// After this many conflicts.
    GaveUp(usize),
}

#[derive(Debug)]
struct Clause {
    literals: Vec<Literal>,
    /// The clauses that it was learned from; empty for a given one.
    from: Vec<usize>,
    /// Variables settled without any decision that it was learned from.
    settled: Vec<usize>,
}

/// Clauses, and what is decided so far.
#[derive(Debug, Default)]
pub(super) struct Solver {
    clauses: Vec<Clause>,
    /// For each literal: the clauses that wait for it to fail.
    watches: Vec<Vec<usize>>,
    values: Vec<Option<bool>>,
    /// For each variable: how many decisions were made before it was set.
    levels: Vec<usize>,
    /// For each variable: the clause that set it; `None`: a decision.
    reasons: Vec<Option<usize>>,
    trail: Vec<Literal>,
    /// Length of the trail before each decision.
    decisions: Vec<usize>,
    /// How much of the trail has been followed.
    followed: usize,
}

impl Solver {
    pub(super) fn new(variables: usize) -> Self {
        Self {
            watches: vec![Vec::new(); 2 * variables],
            values: vec![None; variables],
            levels: vec![0; variables],
            reasons: vec![None; variables],
            ..Self::default()
        }
    }

    /// Adds a clause: one of the literals has to hold. Clauses are numbered in
    /// the order in which they come.
    pub(super) fn add(&mut self, mut literals: Vec<Literal>) {
        literals.sort_unstable();
        literals.dedup();
        self.clauses.push(Clause {
            literals,
            from: Vec::new(),
            settled: Vec::new(),
        });
    }

    /// What a variable is so far.
    pub(super) fn value(&self, variable: usize) -> Option<bool> {
        self.values[variable]
    }

    /// The literals that hold so far, in the order in which they were found.
    pub(super) fn trail(&self) -> &[Literal] {
        &self.trail
    }

    /// Decides everything; `wish` gives the next decision about a variable
    /// that has no value, or `None` when the rest does not matter.
    pub(super) fn solve(mut self, mut wish: impl FnMut(&Self) -> Option<Literal>) -> Verdict {
        if let Some(broken) = self.begin() {
            return Verdict::Contradicts(self.core(broken));
        }
        let mut conflicts = 0;
        loop {
            match self.follow() {
                Some(broken) if self.decisions.is_empty() => {
                    return Verdict::Contradicts(self.core(broken));
                }
                Some(broken) => {
                    conflicts += 1;
                    if conflicts > MAX_CONFLICTS {
                        return Verdict::GaveUp(conflicts);
                    }
                    self.learn(broken);
                }
                None => match wish(&self) {
                    Some(literal) => {
                        self.decisions.push(self.trail.len());
                        self.set(literal, None);
                    }
                    None => return Verdict::Holds(self.trail),
                },
            }
        }
    }

    /// Sets what has no choice; gives a clause that cannot hold.
    fn begin(&mut self) -> Option<usize> {
        for at in 0..self.clauses.len() {
            match *self.clauses[at].literals.as_slice() {
                [] => return Some(at),
                [only] => {
                    if !self.set(only, Some(at)) {
                        return Some(at);
                    }
                }
                [first, second, ..] => {
                    self.watches[first.0].push(at);
                    self.watches[second.0].push(at);
                }
            }
        }
        None
    }

    fn holds(&self, literal: Literal) -> Option<bool> {
        self.values[literal.variable()].map(|value| value == literal.is_yes())
    }

    /// Makes a literal hold; `false` when its opposite does.
    fn set(&mut self, literal: Literal, reason: Option<usize>) -> bool {
        if let Some(holds) = self.holds(literal) {
            return holds;
        }
        let variable = literal.variable();
        self.values[variable] = Some(literal.is_yes());
        self.levels[variable] = self.decisions.len();
        self.reasons[variable] = reason;
        self.trail.push(literal);
        true
    }

    /// Draws all conclusions; gives a clause that cannot hold.
    fn follow(&mut self) -> Option<usize> {
        while let Some(literal) = self.trail.get(self.followed).copied() {
            self.followed += 1;
            let failed = literal.opposite();
            let waiting = std::mem::take(&mut self.watches[failed.0]);
            let mut broken = None;
            for at in waiting {
                if broken.is_none() && self.watch_another(at, failed) {
                    continue;
                }
                self.watches[failed.0].push(at);
                let first = self.clauses[at].literals[0];
                if broken.is_none() && !self.set(first, Some(at)) {
                    broken = Some(at);
                }
            }
            if broken.is_some() {
                return broken;
            }
        }
        None
    }

    /// Waits for another literal than `failed`, which comes second; `false`
    /// when there is none, so that the first one has to hold.
    fn watch_another(&mut self, at: usize, failed: Literal) -> bool {
        let literals = &mut self.clauses[at].literals;
        if literals[0] == failed {
            literals.swap(0, 1);
        }
        let values = &self.values;
        let fails = |literal: &Literal| values[literal.variable()] == Some(!literal.is_yes());
        let Some(other) = (2..literals.len()).find(|&other| !fails(&literals[other])) else {
            return false;
        };
        literals.swap(1, other);
        let second = literals[1];
        self.watches[second.0].push(at);
        true
    }

    /// Learns from a clause that cannot hold, and goes back to where the
    /// lesson would have helped.
    fn learn(&mut self, broken: usize) {
        let lesson = self.lesson(broken);
        let level_of = |literal: &Literal| self.levels[literal.variable()];
        let back_to = lesson.literals.iter().skip(1).map(level_of).max();
        self.go_back(back_to.unwrap_or(0));
        let at = self.clauses.len();
        let first = lesson.literals[0];
        if let Some(second) = lesson.literals.get(1) {
            self.watches[first.0].push(at);
            self.watches[second.0].push(at);
        }
        self.clauses.push(lesson);
        self.set(first, Some(at));
    }

    /// What would have avoided the conflict: the last literal that all of it
    /// went through comes first, the latest of the others second.
    fn lesson(&self, broken: usize) -> Clause {
        let now = self.decisions.len();
        let mut seen = BTreeSet::new();
        let mut lesson = Clause {
            literals: Vec::new(),
            from: Vec::new(),
            settled: Vec::new(),
        };
        let (mut clause, mut open, mut at) = (broken, 0_usize, self.trail.len());
        let through = loop {
            lesson.from.push(clause);
            for literal in &self.clauses[clause].literals {
                let variable = literal.variable();
                if self.levels[variable] == now {
                    open += usize::from(seen.insert(variable));
                } else if seen.insert(variable) {
                    match self.levels[variable] {
                        0 => lesson.settled.push(variable),
                        _ => lesson.literals.push(*literal),
                    }
                }
            }
            while !seen.contains(&self.trail[at - 1].variable())
                || self.levels[self.trail[at - 1].variable()] != now
            {
                at -= 1;
            }
            at -= 1;
            let literal = self.trail[at];
            open -= 1;
            match self.reasons[literal.variable()] {
                Some(reason) if open > 0 => clause = reason,
                _ => break literal,
            }
        };
        let level_of = |literal: &Literal| self.levels[literal.variable()];
        lesson
            .literals
            .sort_by_key(|it| std::cmp::Reverse(level_of(it)));
        lesson.literals.insert(0, through.opposite());
        lesson
    }

    fn go_back(&mut self, level: usize) {
        let Some(&length) = self.decisions.get(level) else {
            return;
        };
        for literal in self.trail.drain(length..) {
            self.values[literal.variable()] = None;
        }
        self.decisions.truncate(level);
        self.followed = length;
    }

    /// The given clauses that a conflict without any decision came from.
    fn core(&self, broken: usize) -> Vec<usize> {
        let (mut given, mut seen, mut explained) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut clauses = vec![broken];
        let mut settled: Vec<usize> = self.variables_of(broken).collect();
        loop {
            if let Some(clause) = clauses.pop() {
                if !seen.insert(clause) {
                    continue;
                }
                let it = &self.clauses[clause];
                if it.from.is_empty() {
                    given.insert(clause);
                }
                clauses.extend(&it.from);
                settled.extend(&it.settled);
            } else if let Some(variable) = settled.pop() {
                if !explained.insert(variable) {
                    continue;
                }
                if let Some(reason) = self.reasons[variable] {
                    clauses.push(reason);
                    settled.extend(self.variables_of(reason));
                }
            } else {
                return given.into_iter().collect();
            }
        }
    }

    fn variables_of(&self, clause: usize) -> impl Iterator<Item = usize> {
        let literals = &self.clauses[clause].literals;
        literals.iter().map(|literal| literal.variable())
    }
}

/// The clauses of `core` without those that the contradiction does not need.
pub(super) fn smallest(variables: usize, clauses: &[Vec<Literal>], core: &[usize]) -> Vec<usize> {
    let mut kept = core.to_vec();
    for &clause in core {
        let without: Vec<usize> = kept.iter().copied().filter(|it| *it != clause).collect();
        let mut solver = Solver::new(variables);
        for &at in &without {
            solver.add(clauses.get(at).cloned().unwrap_or_default());
        }
        let mut open: Vec<usize> = without
            .iter()
            .filter_map(|at| clauses.get(*at))
            .flatten()
            .map(|literal| literal.variable())
            .collect();
        open.sort_unstable();
        open.dedup();
        let wish = |solver: &Solver| {
            let free = open.iter().find(|it| solver.value(**it).is_none());
            free.map(|variable| Literal::yes(*variable))
        };
        if matches!(solver.solve(wish), Verdict::Contradicts(_)) {
            kept = without;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VARIABLES: usize = 7;

    fn literal(number: usize) -> Literal {
        Literal(number)
    }

    fn solve(clauses: &[Vec<Literal>]) -> Verdict {
        let mut solver = Solver::new(VARIABLES);
        for clause in clauses {
            solver.add(clause.clone());
        }
        solver.solve(|solver| {
            let free = (0..VARIABLES).find(|it| solver.value(*it).is_none());
            free.map(Literal::yes)
        })
    }

    fn is_possible(clauses: &[Vec<Literal>]) -> bool {
        (0..1_u32 << VARIABLES).any(|bits| {
            let holds = |it: &Literal| (bits >> it.variable() & 1 == 1) == it.is_yes();
            clauses.iter().all(|clause| clause.iter().any(holds))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_verdict_is_that_of_trying_everything(
            numbers in prop::collection::vec(prop::collection::vec(0..2 * VARIABLES, 0..4), 0..30),
        ) {
            let clauses: Vec<Vec<Literal>> = numbers
                .iter()
                .map(|clause| clause.iter().copied().map(literal).collect())
                .collect();
            match solve(&clauses) {
                Verdict::Holds(trail) => {
                    for clause in &clauses {
                        prop_assert!(clause.iter().any(|it| trail.contains(it)));
                    }
                }
                Verdict::Contradicts(core) => {
                    let of = |numbers: &[usize]| -> Vec<Vec<Literal>> {
                        numbers.iter().map(|at| clauses[*at].clone()).collect()
                    };
                    prop_assert!(!is_possible(&of(&core)));
                    let least = smallest(VARIABLES, &clauses, &core);
                    prop_assert!(!is_possible(&of(&least)));
                    for at in &least {
                        let without: Vec<usize> =
                            least.iter().copied().filter(|it| it != at).collect();
                        prop_assert!(is_possible(&of(&without)));
                    }
                }
                Verdict::GaveUp(_) => prop_assert!(false, "it is small"),
            }
        }
    }
}
