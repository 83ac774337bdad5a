//! Which packages are placed and configured together.

use std::collections::BTreeSet;

use super::control::Control;

/// Packages that are placed together, and which are configured after that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wave {
    pub(super) place: Vec<usize>,
    /// `None`: all that are not configured yet.
    pub(super) configure: Option<BTreeSet<usize>>,
}

impl Wave {
    fn of(place: Vec<usize>) -> Self {
        Self {
            place,
            configure: None,
        }
    }
}

/// Deb files from this size on come last: it takes seconds to decompress one.
const LARGE: u64 = 16 << 20;

/// Which packages are unpacked and configured together, in order. `sizes` are
/// those of the .debs.
pub(super) fn waves(packages: &[Control], sizes: &[u64]) -> Vec<Wave> {
    let essential = closure(packages, Control::is_essential);
    let late = late(packages, sizes, &essential);
    let (first, rest): (Vec<usize>, Vec<usize>) =
        (0..packages.len()).partition(|at| essential.contains(at));
    let (last, rest): (Vec<usize>, Vec<usize>) = rest.into_iter().partition(|at| late.contains(at));
    let mut waves = vec![Wave::of(first)];
    let mut done = essential;
    for group in [rest, last] {
        let mut wave: Vec<usize> = Vec::new();
        for at in group {
            let Some(control) = packages.get(at) else {
                continue;
            };
            let relations = control.relations("Pre-Depends");
            let wanted: BTreeSet<&str> = relations
                .iter()
                .flatten()
                .map(|relation| relation.name.as_str())
                .collect();
            let is_wanted = |control: &Control| {
                let names = control.names();
                names.iter().any(|name| wanted.contains(name.as_str()))
            };
            let is_waiting = wave
                .iter()
                .filter_map(|at| packages.get(*at))
                .any(is_wanted);
            if is_waiting && control.files.contains_key("preinst") {
                let needed = closure(packages, is_wanted);
                let configure: BTreeSet<usize> = needed.difference(&done).copied().collect();
                done.extend(&configure);
                waves.push(Wave {
                    place: std::mem::take(&mut wave),
                    configure: Some(configure),
                });
            }
            wave.push(at);
        }
        waves.push(Wave::of(wave));
    }
    waves.retain(|wave| !wave.place.is_empty());
    waves
}

/// The largest package, where it is a large one, and all that may need it;
/// nothing when that would be an essential one.
fn late(packages: &[Control], sizes: &[u64], essential: &BTreeSet<usize>) -> BTreeSet<usize> {
    let largest = (0..packages.len()).max_by_key(|at| sizes.get(*at).copied().unwrap_or(0));
    let is_large = |at: &usize| sizes.get(*at).is_some_and(|size| *size >= LARGE);
    let mut found: BTreeSet<usize> = largest.filter(is_large).into_iter().collect();
    let mut open: Vec<usize> = found.iter().copied().collect();
    while let Some(names) = open
        .pop()
        .and_then(|at| packages.get(at))
        .map(Control::names)
    {
        for (at, control) in packages.iter().enumerate() {
            let relations = ["Depends", "Pre-Depends"].map(|field| control.relations(field));
            let mut relations = relations.iter().flatten().flatten();
            if relations.any(|relation| names.contains(&relation.name)) && found.insert(at) {
                open.push(at);
            }
        }
    }
    if found.is_disjoint(essential) {
        found
    } else {
        BTreeSet::new()
    }
}

/// The packages that are `wanted`, and all that they depend on.
fn closure(packages: &[Control], wanted: impl Fn(&Control) -> bool) -> BTreeSet<usize> {
    let mut found: BTreeSet<usize> = packages
        .iter()
        .enumerate()
        .filter(|(_, control)| wanted(control))
        .map(|(at, _)| at)
        .collect();
    let mut open: Vec<usize> = found.iter().copied().collect();
    while let Some(control) = open.pop().and_then(|at| packages.get(at)) {
        let depends = control.relations("Depends");
        let wanted = control.relations("Pre-Depends");
        for relation in depends.iter().chain(&wanted).flatten() {
            for (at, other) in packages.iter().enumerate() {
                if other.names().contains(&relation.name) && found.insert(at) {
                    open.push(at);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::control::Stanza;
    use super::*;

    /// The waves of packages written `NAME; Field: value; …`, each with its size.
    fn of(packages: &[(&str, u64)]) -> Vec<Vec<usize>> {
        let control = |text: &str| Control {
            stanza: Stanza::parse(&format!("Package: {}", text.replace("; ", "\n")))
                .expect("a stanza"),
            ..Control::default()
        };
        let controls: Vec<Control> = packages.iter().map(|(text, _)| control(text)).collect();
        let sizes: Vec<u64> = packages.iter().map(|(_, size)| *size).collect();
        let waves = waves(&controls, &sizes);
        waves.into_iter().map(|wave| wave.place).collect()
    }

    #[test]
    fn essential_packages_come_first_and_a_large_one_last() {
        let packages = [
            ("kernel; Depends: kmod", LARGE),
            ("kmod", 1),
            ("dpkg; Essential: yes; Depends: libc", 1),
            ("libc", 1),
            ("meta; Depends: other | kernel", 1),
            ("top; Depends: meta", 1),
        ];
        assert_eq!(of(&packages), [vec![2, 3], vec![1], vec![0, 4, 5]]);
    }

    #[test]
    fn small_packages_and_essential_ones_are_never_late() {
        let small = [("a", LARGE - 1), ("b; Depends: a", 1)];
        assert_eq!(of(&small), [vec![0, 1]]);
        let essential = [("libc", LARGE), ("dpkg; Essential: yes; Depends: libc", 1)];
        assert_eq!(of(&essential), [vec![0, 1]]);
    }
}
