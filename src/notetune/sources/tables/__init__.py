"""Tables of notes: any columns, with outcomes from columns or from tables beside them."""
