"""The flow of tensors through a forward: which operator made each tensor, and which tokens or channels its axes count."""
