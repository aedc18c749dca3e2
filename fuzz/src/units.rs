//! Values with a unit: what is read is written back as a text of the same value.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use mlctl_core::system::template::{Template, load_variables};
use mlctl_core::system::units::{
    Bound, ByteSize, Condition, Cpu, Expect, Indicator, Percent, Quantity, Rate, Threshold, TimeSpan,
};

/// Any text, read as each unit.
pub fn units(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    same::<TimeSpan>(text);
    same::<ByteSize>(text);
    same::<Cpu>(text);
    same::<Percent>(text);
    same::<Rate>(text);
    same::<Quantity>(text);
    same::<Bound>(text);
    same::<Threshold>(text);
    same::<Condition>(text);
    same::<Indicator>(text);
    same::<Expect>(text);
    let _ = load_variables(text);
    if let Ok(template) = text.parse::<Template>() {
        // A target that says of each placeholder what it is gives a text in which each stands again.
        let filled = template.render(|placeholder| Some(placeholder.to_string())).unwrap();
        for placeholder in template.placeholders() {
            assert!(filled.contains(&placeholder.to_string()));
        }
    }
}

fn same<U: FromStr + Display + PartialEq + Debug>(text: &str)
where
    U::Err: Debug,
{
    let Ok(value) = text.parse::<U>() else { return };
    let written = value.to_string();
    let again = written.parse::<U>();
    assert_eq!(again.as_ref().ok(), Some(&value), "{text:?} was written as {written:?}, which is {again:?}");
    assert_eq!(again.unwrap().to_string(), written, "{text:?}");
}
