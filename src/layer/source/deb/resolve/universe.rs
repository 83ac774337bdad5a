//! Small random archives: the resolver finds an answer exactly where trying
//! everything finds one, and its answer holds.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::tests::archive;
use super::*;
use crate::report::Silent;

/// Real names, `a` and so on; virtual ones come after them.
const NAMES: usize = 6;
const VIRTUAL: usize = 2;
const LETTERS: [&str; NAMES + VIRTUAL] = ["a", "b", "c", "d", "e", "f", "x", "y"];

#[derive(Debug, Clone)]
struct Relation {
    name: usize,
    /// `>=`, `<<` or `=`, and the version.
    bound: Option<(usize, u32)>,
}

#[derive(Debug, Clone)]
struct Package {
    name: usize,
    version: u32,
    depends: Vec<Vec<Relation>>,
    conflicts: Vec<Relation>,
    provides: Vec<(usize, Option<u32>)>,
}

impl Relation {
    fn shown(&self) -> String {
        let name = LETTERS[self.name];
        match self.bound {
            Some((operator, version)) => {
                format!("{name} ({} {version})", [">=", "<<", "="][operator])
            }
            None => name.to_owned(),
        }
    }

    fn accepts(&self, version: Option<u32>) -> bool {
        match (self.bound, version) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((0, bound)), Some(version)) => version >= bound,
            (Some((1, bound)), Some(version)) => version < bound,
            (Some((_, bound)), Some(version)) => version == bound,
        }
    }

    fn is_met_by(&self, package: &Package) -> bool {
        (package.name == self.name && self.accepts(Some(package.version)))
            || package
                .provides
                .iter()
                .any(|(name, version)| *name == self.name && self.accepts(*version))
    }
}

impl Package {
    fn shown(&self) -> String {
        let list = |relations: &[Relation], between: &str| {
            let shown: Vec<_> = relations.iter().map(Relation::shown).collect();
            shown.join(between)
        };
        let depends: Vec<_> = self.depends.iter().map(|one| list(one, " | ")).collect();
        let provides: Vec<_> = self
            .provides
            .iter()
            .map(|(name, version)| match version {
                Some(version) => format!("{} (= {version})", LETTERS[*name]),
                None => LETTERS[*name].to_owned(),
            })
            .collect();
        let mut text = format!("{} {}", LETTERS[self.name], self.version);
        for (field, value) in [
            ("Depends", depends.join(", ")),
            ("Conflicts", list(&self.conflicts, ", ")),
            ("Provides", provides.join(", ")),
        ] {
            if !value.is_empty() {
                write!(text, "; {field}: {value}").expect("memory");
            }
        }
        text
    }
}

/// Whether these packages go together, and all that is wanted is among them.
fn holds(chosen: &[&Package], wanted: &[usize]) -> bool {
    let is_wanted_met = |name: &usize| chosen.iter().any(|it| it.name == *name);
    let fits = |package: &&Package| {
        let is_met = |clause: &Vec<Relation>| {
            let by = |relation: &Relation| chosen.iter().any(|it| relation.is_met_by(it));
            clause.iter().any(by)
        };
        let is_borne = |relation: &Relation| {
            let others = chosen.iter().filter(|it| it.name != package.name);
            !others.into_iter().any(|it| relation.is_met_by(it))
        };
        package.depends.iter().all(is_met) && package.conflicts.iter().all(is_borne)
    };
    wanted.iter().all(is_wanted_met) && chosen.iter().all(fits)
}

/// Tries every choice of one version or none for each name.
fn is_possible(packages: &[Package], wanted: &[usize]) -> bool {
    fn go<'p>(
        name: usize,
        chosen: &mut Vec<&'p Package>,
        packages: &'p [Package],
        wanted: &[usize],
    ) -> bool {
        if name == NAMES {
            return holds(chosen, wanted);
        }
        if go(name + 1, chosen, packages, wanted) {
            return true;
        }
        packages.iter().filter(|it| it.name == name).any(|package| {
            chosen.push(package);
            let is_found = go(name + 1, chosen, packages, wanted);
            chosen.pop();
            is_found
        })
    }
    go(0, &mut Vec::new(), packages, wanted)
}

fn relation() -> impl Strategy<Value = Relation> {
    let bound = prop::option::weighted(0.4, (0..3_usize, 1..4_u32));
    (0..NAMES + VIRTUAL, bound).prop_map(|(name, bound)| Relation { name, bound })
}

fn package() -> impl Strategy<Value = Package> {
    let provided = (NAMES..NAMES + VIRTUAL, prop::option::of(1..4_u32));
    (
        (0..NAMES, 1..4_u32),
        prop::collection::vec(prop::collection::vec(relation(), 1..3), 0..3),
        prop::collection::vec(relation(), 0..2),
        prop::collection::vec(provided, 0..2),
    )
        .prop_map(|((name, version), depends, conflicts, provides)| Package {
            name,
            version,
            depends,
            conflicts,
            provides,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_is_found_exactly_where_there_is_one(
        mut packages in prop::collection::vec(package(), 1..11),
        picks in prop::collection::vec(0..16_usize, 1..4),
    ) {
        packages.sort_by_key(|it| (it.name, it.version));
        packages.dedup_by_key(|it| (it.name, it.version));
        let mut wanted: Vec<usize> =
            picks.iter().map(|pick| packages[pick % packages.len()].name).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let lines: Vec<String> = packages.iter().map(Package::shown).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let request = Request {
            architecture: "amd64".into(),
            base: Base::Nothing,
            layers: vec![LayerRequest {
                name: "all".into(),
                packages: wanted.iter().map(|name| LETTERS[*name].to_owned()).collect(),
                recommends: false,
            }],
            exclude: Vec::new(),
            provided: Vec::new(),
            limits: Vec::new(),
            held: Vec::new(),
        };
        match solve(&archive(&lines), &request, &Silent) {
            Ok(layers) => {
                let chosen: Vec<&Package> = layers[0]
                    .pins
                    .iter()
                    .map(|pin| {
                        let is_it = |it: &&Package| {
                            LETTERS[it.name] == pin.name && it.version.to_string() == pin.version
                        };
                        packages.iter().find(is_it).expect("one of them")
                    })
                    .collect();
                prop_assert!(holds(&chosen, &wanted), "{lines:#?} {wanted:?} {chosen:?}");
            }
            Err(error) => {
                prop_assert!(!is_possible(&packages, &wanted), "{error}\n{lines:#?} {wanted:?}");
                prop_assert!(!error.to_string().contains("combinations"), "{error}");
            }
        }
    }
}
