//! Medians and the like of a few figures.

/// The figure that this share of all does not exceed: of ten, 0.5 is the fifth and 0.99 the last.
pub fn at(figures: &[f64], share: f64) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied()
}

/// Median and 99th of a hundred, as they stand in a table.
pub fn pair(figures: &[f64], digits: usize) -> String {
    match (at(figures, 0.5), at(figures, 0.99)) {
        (Some(middle), Some(high)) => format!("{middle:.digits$} / {high:.digits$}"),
        _ => "–".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_end_of_ten() {
        let ten: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!((at(&ten, 0.5), at(&ten, 0.99), at(&[], 0.5)), (Some(5.0), Some(10.0), None));
        assert_eq!(pair(&ten, 1), "5.0 / 10.0");
        assert_eq!(pair(&[], 1), "–");
    }
}
