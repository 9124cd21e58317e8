"""Any module laid open: its torch calls, what they cost, how long they take, and the attention among them."""
