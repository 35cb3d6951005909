//! Finding what a person means by a name.

use super::{Backend, BackendId, ServiceId, Snapshot};

impl Snapshot {
    /// The service of this name; a retired one only if no other has it.
    ///
    /// # Errors
    /// A sentence that says what names there are.
    pub fn find_service(&self, name: &str) -> Result<ServiceId, String> {
        let found = self.all_services().find(|service| service.name == name);
        found.map(|service| service.id).ok_or_else(|| {
            let names = self.services.iter().map(|service| service.name.as_str());
            format!("there is no service `{name}`; there {}", enumerate(names))
        })
    }

    /// The backends, retired ones included, that `BACKEND` (in any service) or `SERVICE/BACKEND` names.
    ///
    /// # Errors
    /// A sentence that says what names there are.
    pub fn find_backends(&self, name: &str) -> Result<Vec<BackendId>, String> {
        let full = |backend: &Backend| format!("{}/{}", self.service(backend.service).name, backend.name);
        let meant = |backend: &&Backend| backend.name == name || full(backend) == name;
        let found: Vec<_> = self.all_backends().filter(meant).map(|backend| backend.id).collect();
        if found.is_empty() {
            let names: Vec<_> = self.all_backends().map(full).collect();
            return Err(format!("there is no backend `{name}`; there {}", enumerate(names.iter().map(String::as_str))));
        }
        Ok(found)
    }
}

/// `is none`, `is web`, `are web, dns`, `are web, dns and 7 more`.
pub fn enumerate<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let names: Vec<_> = names.collect();
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len() {
        0 => "is none".to_owned(),
        1 => format!("is {shown}"),
        n if n > SHOWN => format!("are {shown} and {} more", n - SHOWN),
        _ => format!("are {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_list_is_whole_and_a_long_one_is_not() {
        assert_eq!(enumerate([].into_iter()), "is none");
        assert_eq!(enumerate(["web"].into_iter()), "is web");
        assert_eq!(enumerate(["web", "dns"].into_iter()), "are web, dns");
        assert_eq!(enumerate(["s"; 14].into_iter()), "are s, s, s, s, s, s, s, s, s, s, s, s and 2 more");
    }
}
