//! The reader of loaded objects, on an image that is damaged anywhere: it answers or finds nothing, and reads nothing outside.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../src/driver/elf.rs"]
mod elf;

fuzz_target!(|image: &[u8]| {
    if let Some(object) = elf::Object::from_bytes(image) {
        for name in [c"cuInit", c"f", c""] {
            let _ = object.function(name);
            let _ = object.needs(name);
        }
        let _ = object.soname();
        object.each_export(&mut |_, _| ());
        object.each_reference(&|name| !name.is_empty(), &mut |reference| _ = reference.target());
    }
});
