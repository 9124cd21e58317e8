"""Steps, plans and what follows from them by arithmetic: layout, memory, backward, roofline."""
