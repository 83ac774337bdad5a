//! In which order packages are unpacked, by what they say of each other.
//!
//! The lock has them by name, so that it merges; the order is worked out here
//! and the same for the same set of packages.

use std::collections::{BTreeMap, BTreeSet};

use super::control::Control;

/// Numbers of the packages, which come by name, in their order:
/// pre-dependencies strictly before, dependencies before dependents; a circle
/// is entered where the fewest dependencies are missing, then by name.
pub(super) fn unpack_order(packages: &[&Control]) -> Vec<usize> {
    let graph = Graph::new(packages);
    let mut order = Vec::new();
    for mut knot in graph.knots() {
        while !knot.is_empty() {
            let missing = |at: &usize, needs: &BTreeMap<usize, BTreeSet<usize>>| {
                needs
                    .get(at)
                    .map_or(0, |needs| needs.intersection(&knot).count())
            };
            let next = knot
                .iter()
                .copied()
                .min_by_key(|at| (missing(at, &graph.before), missing(at, &graph.all), *at));
            let next = next.expect("the knot is not empty: checked above");
            knot.remove(&next);
            order.push(next);
        }
    }
    order
}

/// Who needs whom.
struct Graph {
    all: BTreeMap<usize, BTreeSet<usize>>,
    /// Pre-dependencies only.
    before: BTreeMap<usize, BTreeSet<usize>>,
}

impl Graph {
    fn new(packages: &[&Control]) -> Self {
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, control) in packages.iter().enumerate() {
            for name in control.names() {
                by_name.entry(name).or_default().push(at);
            }
        }
        let needs = |at: usize, control: &Control, field: &str| -> BTreeSet<usize> {
            let met = |alternatives: &Vec<super::control::Relation>| {
                let of_name = |relation: &super::control::Relation| by_name.get(&relation.name);
                let mut all = alternatives.iter().filter_map(of_name).flatten().copied();
                all.find(|it| *it != at)
            };
            control.relations(field).iter().filter_map(met).collect()
        };
        let (mut all, mut before) = (BTreeMap::new(), BTreeMap::new());
        for (at, control) in packages.iter().enumerate() {
            let strictly = needs(at, control, "Pre-Depends");
            let mut both = needs(at, control, "Depends");
            both.extend(&strictly);
            all.insert(at, both);
            before.insert(at, strictly);
        }
        Self { all, before }
    }

    /// Sets of packages that need each other in a circle, mostly of one
    /// package; what a knot needs comes in earlier ones.
    ///
    /// Source: R. Tarjan, "Depth-first search and linear graph algorithms",
    /// 1972; with a stack of its own instead of recursion.
    fn knots(&self) -> Vec<BTreeSet<usize>> {
        let mut walk = Walk::default();
        for &start in self.all.keys() {
            if !walk.number.contains_key(&start) {
                walk.from(start, &self.all);
            }
        }
        walk.knots
    }
}

#[derive(Default)]
struct Walk {
    /// In the order of discovery.
    number: BTreeMap<usize, usize>,
    /// The lowest number that is reached and not yet in a knot.
    low: BTreeMap<usize, usize>,
    open: Vec<usize>,
    is_open: BTreeSet<usize>,
    knots: Vec<BTreeSet<usize>>,
}

impl Walk {
    fn from(&mut self, start: usize, needs: &BTreeMap<usize, BTreeSet<usize>>) {
        let targets = |id: usize| needs.get(&id).into_iter().flatten().copied();
        self.discover(start);
        let mut path = vec![(start, targets(start).collect::<Vec<_>>().into_iter())];
        while let Some((id, rest)) = path.last_mut() {
            let id = *id;
            match rest.next() {
                Some(target) if !self.number.contains_key(&target) => {
                    self.discover(target);
                    path.push((target, targets(target).collect::<Vec<_>>().into_iter()));
                }
                Some(target) if self.is_open.contains(&target) => {
                    let seen = self.number.get(&target).copied().unwrap_or(0);
                    self.lower(id, seen);
                }
                Some(_) => {}
                None => {
                    path.pop();
                    let low = self.low.get(&id).copied().unwrap_or(0);
                    if let Some((parent, _)) = path.last() {
                        self.lower(*parent, low);
                    }
                    if self.number.get(&id) == Some(&low) {
                        self.close(id);
                    }
                }
            }
        }
    }

    fn discover(&mut self, id: usize) {
        let number = self.number.len();
        self.number.insert(id, number);
        self.low.insert(id, number);
        self.open.push(id);
        self.is_open.insert(id);
    }

    fn lower(&mut self, id: usize, to: usize) {
        if let Some(low) = self.low.get_mut(&id) {
            *low = (*low).min(to);
        }
    }

    fn close(&mut self, root: usize) {
        let mut knot = BTreeSet::new();
        while let Some(id) = self.open.pop() {
            self.is_open.remove(&id);
            knot.insert(id);
            if id == root {
                break;
            }
        }
        self.knots.push(knot);
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::Stanza;
    use super::*;

    /// The order of packages written `NAME; Field: value; …`.
    fn order(packages: &[&str]) -> String {
        let mut controls: Vec<Control> = packages
            .iter()
            .map(|text| Control {
                stanza: Stanza::parse(&format!("Package: {}", text.replace("; ", "\n")))
                    .expect("a stanza"),
                ..Control::default()
            })
            .collect();
        controls.sort_by(|one, two| one.package().cmp(two.package()));
        let controls: Vec<&Control> = controls.iter().collect();
        let names: Vec<_> = unpack_order(&controls)
            .into_iter()
            .map(|at| controls[at].package())
            .collect();
        names.join(" ")
    }

    #[test]
    fn dependencies_come_before_dependents() {
        assert_eq!(
            order(&["a; Depends: b, c", "b; Depends: c (>= 1)", "c", "d"]),
            "c b a d"
        );
        assert_eq!(order(&["a; Depends: v", "z; Provides: v (= 1)"]), "z a");
        assert_eq!(order(&["a; Depends: x | b, missing", "b"]), "b a");
    }

    #[test]
    fn pre_dependencies_come_strictly_before_even_in_a_circle() {
        assert_eq!(
            order(&[
                "a; Pre-Depends: b",
                "b; Depends: a",
                "c; Depends: d",
                "d; Depends: c",
            ]),
            "b a c d"
        );
    }

    #[test]
    fn the_order_is_of_the_set_and_not_of_its_order() {
        let forth = ["a; Depends: b", "b; Depends: a, c", "c"];
        let back = ["c", "b; Depends: a, c", "a; Depends: b"];
        assert_eq!(order(&forth), order(&back));
    }
}
