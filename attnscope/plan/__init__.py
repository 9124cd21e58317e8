"""Steps, plans, and the properties that follow from them by arithmetic: layout, memory, backward and roofline."""
