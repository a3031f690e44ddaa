//! Lists in parts (KEP-5825): each item once, some to a message, so that a node with many needs no message that is too long.

use std::pin::Pin;

use futures::Stream;
use tonic::{Response, Status};

/// How many items one message carries. containerd's, too.
const PAGE_ITEMS: usize = 100;

pub type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A list that is empty has no message, only its end.
pub fn pages<I: Send + 'static, T: 'static>(items: Vec<I>, message: fn(Vec<I>) -> T) -> Response<Streamed<T>> {
    let mut items = items.into_iter();
    let pages = std::iter::from_fn(move || {
        let page: Vec<I> = items.by_ref().take(PAGE_ITEMS).collect();
        (!page.is_empty()).then(|| Ok(message(page)))
    });
    Response::new(Box::pin(tokio_stream::iter(pages)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt};

    #[test]
    fn each_item_comes_once_and_in_its_place() {
        for count in [0, 1, PAGE_ITEMS, PAGE_ITEMS + 1, 3 * PAGE_ITEMS] {
            let items: Vec<usize> = (0..count).collect();
            let stream = pages(items.clone(), |page| page).into_inner();
            let pages: Vec<Vec<usize>> = stream.map(Result::unwrap).collect::<Vec<_>>().now_or_never().unwrap();
            assert_eq!(pages.len(), count.div_ceil(PAGE_ITEMS));
            assert!(pages.iter().all(|page| (1..=PAGE_ITEMS).contains(&page.len())));
            assert_eq!(pages.concat(), items);
        }
    }
}
