//! The few categories that the simulated site knows.

use serde_json::{Value, json};

/// A leaf category of the site.
#[derive(Debug)]
pub struct Category {
    /// Id with the site's prefix.
    pub id: &'static str,
    /// Name as shown.
    pub name: &'static str,
    /// Words by which a domain search finds it.
    pub words: &'static [&'static str],
    /// Domain id, as `/domain_discovery/search` gives.
    pub domain: &'static str,
}

/// Every category, in the order in which the site lists them.
pub const CATEGORIES: &[Category] = &[
    Category {
        id: "MLA1055",
        name: "Celulares y Smartphones",
        words: &["celular", "phone", "smartphone"],
        domain: "MLA-CELLPHONES",
    },
    Category { id: "MLA1652", name: "Notebooks", words: &["notebook", "laptop"], domain: "MLA-NOTEBOOKS" },
    Category {
        id: "MLA3697",
        name: "Auriculares",
        words: &["auricular", "headphone"],
        domain: "MLA-HEADPHONES",
    },
    Category {
        id: "MLA109027",
        name: "Zapatillas",
        words: &["zapatilla", "sneaker"],
        domain: "MLA-SNEAKERS",
    },
    Category { id: "MLA1161", name: "Mochilas", words: &["mochila", "backpack"], domain: "MLA-BACKPACKS" },
];

/// The category of this id.
pub fn category(id: &str) -> Option<&'static Category> {
    CATEGORIES.iter().find(|category| category.id == id)
}

impl Category {
    /// The category as `/categories/{id}` shows it.
    pub fn view(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "path_from_root": [{ "id": self.id, "name": self.name }],
            "children_categories": [],
            "settings": { "listing_allowed": true, "currencies": ["ARS"], "max_title_length": 60 },
        })
    }

    /// The attributes that an item of this category may or must have.
    pub fn attributes(&self) -> Value {
        let required = |id: &str, name: &str| json!({ "id": id, "name": name, "value_type": "string", "tags": { "required": true } });
        let optional =
            |id: &str, name: &str| json!({ "id": id, "name": name, "value_type": "string", "tags": {} });
        json!([
            required("BRAND", "Marca"),
            required("ITEM_CONDITION", "Condición del ítem"),
            optional("GTIN", "Código universal de producto"),
            optional("SELLER_SKU", "SKU"),
        ])
    }
}
