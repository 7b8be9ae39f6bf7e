-- The head as Redis has it now, on a master that the cell knows.
-- Returns: {epoch, head, fence}.
return { epoch, head, fence }
