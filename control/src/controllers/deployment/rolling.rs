//! How many pods the new set and the old ones may have.
//!
//! Growth is bounded by `replicas + maxSurge` pods in all; shrinking keeps `replicas - maxUnavailable` available ones.

use gantry_kube::Object;

use super::plan::{Action, View, available, scale, size};

pub fn grow(view: &View<'_>, current: &Object, old: &[&Object]) -> Vec<Action> {
    let have = size(current);
    if have > view.replicas {
        return vec![scale(view, current, view.replicas)];
    }
    let total = have + old.iter().map(|set| size(set)).sum::<i64>();
    let room = (view.replicas + view.max_surge - total).min(view.replicas - have);
    if room > 0 { vec![scale(view, current, have + room)] } else { Vec::new() }
}

pub fn shrink(view: &View<'_>, current: &Object, old: &[&Object]) -> Vec<Action> {
    let running: i64 = old.iter().map(|set| size(set)).sum();
    if running == 0 {
        return Vec::new();
    }
    let least = view.replicas - view.max_unavailable;
    let missing_new = size(current) - available(current);
    let mut budget = size(current) + running - least - missing_new;
    if budget <= 0 {
        return Vec::new();
    }
    // Pods that serve nobody go first, whatever their set.
    let mut sizes: Vec<i64> = old.iter().map(|set| size(set)).collect();
    for (set, left) in old.iter().zip(&mut sizes) {
        let idle = (*left - available(set)).clamp(0, budget);
        *left -= idle;
        budget -= idle;
    }
    let serving: i64 = old.iter().chain([&current]).map(|set| available(set)).sum();
    let mut spare = (serving - least).min(budget);
    for left in &mut sizes {
        let take = (*left).clamp(0, spare.max(0));
        *left -= take;
        spare -= take;
    }
    let changed = old.iter().zip(sizes).filter(|(set, left)| size(set) != *left);
    changed.map(|(set, left)| scale(view, set, left)).collect()
}

/// The size changed in the middle of a rollout (or while paused): every set keeps its share.
pub fn scale_in_proportion(view: &View<'_>, current: Option<&Object>, old: &[&Object]) -> Vec<Action> {
    let all: Vec<&Object> = current.into_iter().chain(old.iter().copied()).collect();
    let active: Vec<&Object> = all.iter().copied().filter(|set| size(set) > 0).collect();
    let target = match active.as_slice() {
        [] => current.or(all.last().copied()),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(set) = target {
        let stale = set.annotation(super::plan::DESIRED) != Some(view.replicas.to_string().as_str());
        return if size(set) != view.replicas || (stale && size(set) > 0) {
            vec![scale(view, set, view.replicas)]
        } else {
            Vec::new()
        };
    }
    if !super::history::is_scaling(view, &active) {
        return Vec::new();
    }
    // Largest sets first; what rounding leaves over goes to the largest.
    let mut sorted = active;
    sorted.sort_by_key(|set| std::cmp::Reverse(size(set)));
    let total: i64 = sorted.iter().map(|set| size(set)).sum();
    let goal = if view.replicas > 0 { view.replicas + view.max_surge } else { 0 };
    let mut sizes: Vec<i64> = sorted.iter().map(|set| size(set) * goal / total).collect();
    if let Some(first) = sizes.first_mut() {
        *first += goal - sorted.iter().map(|set| size(set) * goal / total).sum::<i64>();
    }
    sorted.iter().zip(sizes).map(|(set, to)| scale(view, set, to.max(0))).collect()
}
