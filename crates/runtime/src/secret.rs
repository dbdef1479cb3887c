//! Text that must not be seen: passwords, tokens, keys.

use std::fmt;

/// A secret text. It cannot be printed by mistake: nothing writes it but who asks for [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The text, for whoever has to send or compare it. Never log it; compare what others sent in constant time.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Some(Secret::new("planted".to_string()));
        assert_eq!(format!("{secret:?}"), "Some([secret])");
        assert_eq!(secret.unwrap().expose(), "planted");
    }
}
