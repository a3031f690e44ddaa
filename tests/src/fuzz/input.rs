//! Taking an input apart, so that one line of bytes can carry choices besides the text they are about.

use gantry_kube::Resource;
use gantry_kube::resource::ALL;

pub(super) struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// A choice; 0 where nothing is left.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn resource(&mut self) -> &'static Resource {
        ALL[usize::from(self.byte()) % ALL.len()]
    }

    /// Up to the mark, which is passed over; everything where it does not come.
    pub fn until(&mut self, mark: u8) -> &'a [u8] {
        let end = self.0.iter().position(|b| *b == mark).unwrap_or(self.0.len());
        let (head, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        head
    }

    /// The same as text, with whatever is none of it replaced.
    pub fn text_until(&mut self, mark: u8) -> String {
        String::from_utf8_lossy(self.until(mark)).into_owned()
    }
}

/// The byte by which [`Input::resource`] chooses this kind.
pub(super) fn chosen(resource: &Resource) -> u8 {
    ALL.iter().position(|known| *known == resource).unwrap_or_default() as u8
}

pub(super) fn texts(list: &[&str]) -> Vec<Vec<u8>> {
    list.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A seed that was found by a run, as the test prints it.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}
