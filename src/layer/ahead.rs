//! What will be in layers that are still to be made.

use std::io::Read;
use std::time::Duration;

use super::LayerShop;
use super::key::layer_key;
use super::package::{PathFilter, large_files};
use super::spec::{LayerSpec, PackagePin, PackagesRecipe, Recipe};

/// How often it is looked whether more packages have been unpacked.
const PAUSE: Duration = Duration::from_millis(10);

/// Gives the files of `at_least` so many bytes of packages that are not in
/// the store as part of a layer, largest packages first and each as soon as
/// it is unpacked, until `take` wants no more or `is_over` says so. For work
/// that fills idle time: it may be any other bytes that get installed.
pub fn large_files_ahead(
    specs: &[LayerSpec],
    shop: &LayerShop<'_>,
    at_least: u64,
    take: &mut dyn FnMut(&mut dyn Read, u64) -> bool,
    is_over: &dyn Fn() -> bool,
) {
    let mut waiting: Vec<(&PackagePin, PathFilter)> = missing(specs, shop)
        .into_iter()
        .flat_map(|recipe| {
            let filter = PathFilter::new(&recipe.exclude_paths, &recipe.include_paths);
            recipe.pins.iter().map(move |pin| (pin, filter.clone()))
        })
        .collect();
    waiting.sort_by_key(|(pin, _)| std::cmp::Reverse(pin.size));
    while !waiting.is_empty() && !is_over() {
        waiting.retain(|(pin, filter)| {
            let place = shop.store.plain_path(&pin.sha256);
            is_over() || !large_files((place.as_path(), &pin.sha256), filter, at_least, take)
        });
        std::thread::sleep(PAUSE);
    }
}

/// The packages layers of `specs` that are not in the store.
fn missing<'a>(specs: &'a [LayerSpec], shop: &LayerShop<'_>) -> Vec<&'a PackagesRecipe> {
    let mut parents = Vec::new();
    let mut all_there = true;
    let mut missing = Vec::new();
    for spec in specs {
        // The key of a layer needs all below it.
        let record = all_there.then(|| {
            let key = layer_key(spec, &parents, shop.source_date);
            shop.store.record(&key).ok().flatten()
        });
        match (record.flatten(), &spec.recipe) {
            (Some(record), _) => parents.push(record.diff_id),
            (None, recipe) => {
                all_there = false;
                if let Recipe::Packages(recipe) = recipe {
                    missing.push(recipe);
                }
            }
        }
    }
    missing
}
