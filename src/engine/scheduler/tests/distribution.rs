//! Each scheduler's shares over a million flows, against its theory.

use super::*;

const FLOWS: u32 = 1_000_000;
/// Ten backends with as many weights, one of them out of service.
const WEIGHTS: [u16; 11] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0];

/// A million flows of ten thousand clients, and how many each backend has got of them.
fn deal(balance: Balance, weights: &[u16]) -> Vec<f64> {
    deal_by(&*build(balance, &candidates(weights)), weights.len())
}

fn deal_by(scheduler: &dyn Scheduler, backends: usize) -> Vec<f64> {
    let loads = Loads::new();
    for n in 0..FLOWS {
        let mut request = request(n % 10_000, random::another(n.into()), &loads);
        request.client.port = u16::try_from(1_024 + n / 10_000).unwrap();
        loads.opened(scheduler.pick(&request).unwrap());
    }
    (0..backends).map(|id| loads.get(BackendId(u16::try_from(id).unwrap())).into()).collect()
}

/// Pearson's statistic of how far the shares are from the weights, in its own standard deviations (it has mean f and
/// variance 2f for f degrees of freedom): above 5 once in some hundred thousand tables if every flow is a draw by weight.
fn surprise(flows: &[f64], weights: &[u16]) -> f64 {
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let statistic: f64 = flows
        .iter()
        .zip(weights)
        .filter(|(_, weight)| **weight > 0)
        .map(|(got, weight)| (got, f64::from(FLOWS) * f64::from(*weight) / total))
        .map(|(got, fair)| (got - fair).powi(2) / fair)
        .sum();
    let freedom = weights.iter().filter(|weight| **weight > 0).count() as f64 - 1.;
    (statistic - freedom) / (2. * freedom).sqrt()
}

/// A weighted draw by hash or by chance is multinomial.
#[test]
fn hash_and_chance_share_a_million_flows_by_weight() {
    for balance in [Balance::Maglev, Balance::Random] {
        let surprise = surprise(&deal(balance, &WEIGHTS), &WEIGHTS);
        assert!(surprise.abs() < 5., "{balance:?}: {surprise:.1} standard deviations from a draw by weight");
    }
}

/// So that the test above is known to test: one backend that gets a fiftieth less than its share is found.
#[test]
fn a_share_that_is_two_percent_off_is_found() {
    let mut flows = deal(Balance::Random, &WEIGHTS);
    (flows[8], flows[9]) = (flows[8] * 0.98, flows[9] + flows[8] * 0.02);
    assert!(surprise(&flows, &WEIGHTS) > 5., "{}", surprise(&flows, &WEIGHTS));
}

/// One draw for each client, whatever its ports: the shares are those of ten thousand draws, a hundred flows each.
#[test]
fn source_hash_shares_the_clients_by_weight() {
    let clients: Vec<f64> = deal(Balance::SourceHash, &WEIGHTS).iter().map(|flows| flows / 100.).collect();
    assert!(clients.iter().all(|clients| clients.fract() == 0.), "a client's flows are together: {clients:?}");
    let as_many_draws: Vec<f64> = clients.iter().map(|clients| clients * 100.).collect();
    let surprise = surprise(&as_many_draws, &WEIGHTS) / 100.;
    assert!(surprise.abs() < 5., "{surprise:.1} standard deviations from a draw by weight");
}

/// Turns and counting leave nothing to chance: the share of the flows, to within one turn.
#[test]
fn turns_and_counting_share_a_million_flows_exactly() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections] {
        for (flows, weight) in deal(balance, &WEIGHTS).iter().zip(WEIGHTS) {
            let fair = f64::from(FLOWS) * f64::from(weight) / 55.;
            assert!((flows - fair).abs() <= 1., "{balance:?}, weight {weight}: {flows} flows, {fair} would be fair");
        }
    }
}

/// The fullest of n backends has O(log log n) flows more than the mean, however many flows there are (Berenbrink,
/// Czumaj, Steger and Vöcking 2006); with one choice it is as much as a draw deviates.
#[test]
fn two_choices_are_nearly_even_where_one_is_not() {
    let gap = |balance| {
        let flows = deal(balance, &[1; 100]);
        flows.iter().copied().fold(0., f64::max) - f64::from(FLOWS) / 100.
    };
    let (two, one) = (gap(Balance::PowerOfTwo), gap(Balance::Random));
    assert!(two <= 4. && one > 100., "two choices: {two} flows above the mean, one: {one}");
}
