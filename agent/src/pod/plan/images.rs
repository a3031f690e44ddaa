//! Images that containers and volumes need: asked for, waited for, and shown as what they wait for.

use super::super::memory::{Failure, Image, PULL_ERROR_SHOWN_SECONDS, after, image_key};
use super::super::seen::State;
use super::super::want::{WantedContainer, WantedImage};
use super::{Action, Planner, Waiting};

impl Planner<'_> {
    /// Pulls the image that is needed first while the sandbox is being made.
    pub(super) fn pull_ahead(&mut self) {
        let first: Vec<&WantedContainer> = match self.want.init.first() {
            Some(init) => vec![init],
            None => self.want.containers.iter().collect(),
        };
        for container in first {
            let ended = self.seen.latest(&container.name).filter(|c| c.state == State::Exited);
            let backs_off = ended.and_then(|c| self.crash_wait(c)).is_some_and(|(until, _)| self.now < until);
            if self.is_done(container) || backs_off {
                continue;
            }
            for image in container.images() {
                if !self.memory.images.contains_key(&image_key(&container.name, image)) {
                    self.pull(&container.name, image);
                }
            }
        }
    }

    /// What an image is called on this node; brings it here where it is not.
    pub(super) fn image(&mut self, container: &str, image: &WantedImage) -> Option<String> {
        match self.memory.images.get(&image_key(container, image)) {
            None => self.pull(container, image),
            Some(Image::Pulling { failed: None }) => {}
            Some(Image::Pulling { failed: Some(failure) }) => self.show_image_failure(container, image, failure),
            Some(Image::Failed(failure)) => self.image_failed(container, image, failure),
            Some(Image::Present { image_ref }) => return Some(image_ref.clone()),
        }
        None
    }

    fn pull(&mut self, container: &str, image: &WantedImage) {
        self.act(Action::Pull { name: container.to_owned(), image: image.clone() });
    }

    fn image_failed(&mut self, container: &str, image: &WantedImage, failure: &Failure) {
        if self.now >= failure.until {
            self.pull(container, image);
        } else {
            self.wake(failure.until);
        }
        self.show_image_failure(container, image, failure);
    }

    fn show_image_failure(&mut self, container: &str, image: &WantedImage, failure: &Failure) {
        let shown_until = after(failure.at, PULL_ERROR_SHOWN_SECONDS);
        if failure.reason == "ErrImagePull" && self.now >= shown_until {
            let message = format!("Back-off pulling image \"{}\": ErrImagePull: {}", image.reference, failure.message);
            return self.wait(container, Waiting::new("ImagePullBackOff", message));
        }
        if failure.reason == "ErrImagePull" {
            self.wake(shown_until);
        }
        self.wait(container, Waiting::new(&failure.reason, failure.message.clone()));
    }
}
