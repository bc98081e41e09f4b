"""Acute infections and acute diseases of the lungs."""

from notetune.hospital.condition import Acute, Effects

MEDICAL = (
    Acute(
        name="septic_shock",
        weight=8,
        complicates=2,
        age=(69, 14),
        boosts=("metastatic_cancer", "dialysis"),
        complaints=(
            "{fever and |}hypotension",
            "fevers",
            "lethargy",
            "{altered mental status|AMS}",
        ),
        terms=("septic shock", "severe sepsis", "sepsis with shock", "overwhelming sepsis"),
        effects=Effects(1.5, 1.2, 0.35, 1.2, 0.8, 0.4),
        diagnoses=(
            ("0389", 0.85),
            ("99592", 0.85),
            ("78552", 0.75),
            ("51881", 0.35),
            ("2762", 0.3),
        ),
        procedures=(("3893", 0.85), ("3891", 0.3), ("0017", 0.3)),
        symptoms=("fevers", "chills", "rigors"),
        excluded=("Blood cultures remain without growth and sepsis was felt unlikely.",),
        exam=(
            ("general", "{lethargic|ill appearing|toxic}, {warm and flushed|diaphoretic}"),
            ("extremities", "{cool with delayed capillary refill|warm, bounding pulses}"),
        ),
        onsets=(
            "{2-4} days of fevers, rigors and {lethargy|confusion|poor oral intake}",
            "fever to {101.8-104.2} and low blood pressure",
            "hypotension and {confusion|decreased urine output}",
        ),
        story=(
            "{His} {family|visiting nurse|aide} found {him} {confused|hard to arouse} and called "
            "{EMS|911}.",
            "In the ED {he} was febrile to {101.2-104.1} with a white count of {15.8-33.4} and "
            "{6-24}% bands.",
            "{Blood cultures|Cultures} were drawn and {vancomycin and zosyn|vanco/cefepime/flagyl|"
            "broad spectrum antibiotics} were started.",
            "A {right IJ|central} line was placed in the ED.",
        ),
        grades=(
            (
                "Blood pressure came up with {2-3} liters of saline, pressors were not needed.",
                "Lactate was {1.3-2.3}; {he} never required levophed.",
            ),
            (
                "After {3-5} liters {he} was started on low dose {levophed|norepinephrine}.",
                "Lactate {3.0-4.4} came down with fluids but one pressor was needed.",
            ),
            (
                "Despite {6-9} liters {he} was on {two|three} pressors, lactate {6.6-12.8}.",
                "Levophed and vasopressin were at maximal doses and {he} was mottled to the knees.",
                "Lactate rose from {4.1-5.9} to {8.1-13.0} on {two|three} pressors.",
            ),
        ),
        imaging=(
            ("CHEST (PORTABLE AP)", "Low lung volumes. No focal consolidation.", "Clear lungs."),
            (
                "CT ABDOMEN W/CONTRAST",
                "Mild fat stranding, no drainable collection.",
                "No abscess.",
            ),
        ),
        treatment=(
            "{He} was treated with {vancomycin and zosyn|meropenem|cefepime} and early fluids.",
            "Antibiotics were narrowed on day {3-5} when cultures grew {E. coli|MSSA|nothing}.",
        ),
    ),
    Acute(
        name="urosepsis",
        weight=6,
        complicates=5,
        age=(74, 13),
        boosts=("dementia",),
        complaints=("dysuria", "fever", "confusion", "weakness", "flank pain"),
        terms=("urinary tract infection", "UTI", "urosepsis", "pyelonephritis"),
        effects=Effects(-0.2, 0.6, 0.0, -0.7, 0.4),
        diagnoses=(("5990", 0.9), ("99591", 0.55), ("03842", 0.4)),
        procedures=(("3893", 0.25),),
        symptoms=("dysuria", "urinary frequency", "fevers", "hematuria"),
        excluded=("UA was bland, not consistent with UTI.", "Urine culture without growth."),
        exam=(("abdomen", "soft, {suprapubic|left CVA|right CVA} tenderness"),),
        onsets=(
            "{dysuria|foul smelling urine} and {fever|new confusion}",
            "{2-5} days of {flank pain|urinary frequency} and malaise",
        ),
        story=(
            "UA was {grossly positive|notable for >182 WBC and many bacteria}.",
            "{He} {was given|received} {ceftriaxone|ciprofloxacin|cefepime} in the ED.",
            "A chronic foley had last been changed {3-8} weeks ago.",
        ),
        grades=(
            ("{He} remained normotensive and mentated well.",),
            ("Systolic pressure was in the {80|90}s and responded to {2-3} liters of fluid.",),
            ("{He} dropped {his} pressure to the 60s and needed peripheral neosynephrine.",),
        ),
        imaging=(
            ("RENAL U.S.", "{Mild|No} hydronephrosis. No stones.", "No obstruction."),
            ("CHEST (PA & LAT)", "Heart size normal. Lungs clear.", "No acute process."),
        ),
        treatment=("{He} received a {7|10|14} day course of {ceftriaxone|cefpodoxime|cipro}.",),
    ),
    Acute(
        name="pneumonia",
        weight=9,
        complicates=6,
        age=(68, 16),
        boosts=("copd",),
        complaints=("shortness of breath", "cough", "fever and cough", "dyspnea", "hypoxia"),
        terms=("pneumonia", "PNA", "community acquired pneumonia", "CAP", "lobar pneumonia"),
        effects=Effects(0.35, 0.9, 0.15, 0.7, 0.8, 0.35),
        diagnoses=(("486", 0.8), ("51881", 0.5), ("5119", 0.2), ("48241", 0.15)),
        procedures=(("3324", 0.12), ("3491", 0.08)),
        symptoms=("cough", "sputum production", "fevers", "chills", "pleuritic pain"),
        excluded=(
            "CXR without evidence of pneumonia.",
            "No infiltrate on chest film, so PNA was thought unlikely.",
        ),
        exam=(("lungs", "{bronchial breath sounds|crackles|rhonchi} at the {side} base"),),
        onsets=(
            "{2-7} days of {productive cough|cough with yellow sputum} and {fever|dyspnea}",
            "worsening shortness of breath, {rigors|fever} and {pleuritic chest pain|cough}",
        ),
        story=(
            "{CXR|Chest film} showed a {side} {lower|upper} lobe {infiltrate|consolidation}.",
            "{He} had been given {azithromycin|amoxicillin|a z-pack} by {his} PCP without relief.",
            "{Levofloxacin was|Ceftriaxone and azithromycin were} started in the ED.",
            "A {grandchild|roommate|coworker} had been ill with a cold.",
        ),
        grades=(
            ("{He} was {96-98}% on {room air|2L nasal cannula}, speaking in full sentences.",),
            ("Saturation was {84-88}% on room air, {91-95}% on {4|5|6}L by nasal cannula.",),
            (
                "{He} was {82-88}% on a non-rebreather, using accessory muscles and tiring.",
                "On {100% FiO2|high flow at 60L} the PaO2 was only {48-61}; RR in the 40s.",
            ),
        ),
        imaging=(
            (
                "CHEST (PORTABLE AP)",
                "{Dense|Patchy} opacity in the {side} lower lobe with air bronchograms.",
                "Findings {consistent with|concerning for} pneumonia.",
            ),
        ),
        treatment=(
            "{He} completed {7-10} days of {levofloxacin|ceftriaxone and azithromycin}.",
            "Sputum grew {S. pneumoniae|oral flora only|MSSA} and antibiotics were tailored.",
        ),
    ),
    Acute(
        name="aspiration",
        weight=3,
        complicates=3,
        age=(74, 14),
        boosts=("dementia",),
        complaints=("hypoxia", "respiratory distress", "vomiting and hypoxia", "cough"),
        terms=("aspiration pneumonia", "aspiration event", "aspiration pneumonitis"),
        effects=Effects(0.6, 0.8, 0.25, 1.0, 0.7, 0.3),
        diagnoses=(("5070", 0.9), ("51881", 0.5), ("78720", 0.3)),
        procedures=(("966", 0.35), ("4311", 0.2)),
        symptoms=("dysphagia", "choking with meals"),
        excluded=("Swallow study showed no aspiration.",),
        exam=(
            (
                "lungs",
                "{coarse|wet} breath sounds {bilaterally|on the right}, rhonchi",
            ),
        ),
        onsets=(
            "{acute|sudden} hypoxia after {vomiting|a witnessed choking episode}",
            "respiratory distress noted {after breakfast|overnight} at {his} facility",
        ),
        story=(
            "Staff {suctioned|found} {food|gastric contents} {from|in} the airway.",
            "{He} had failed a swallow evaluation {last month|in <YEAR>} and refused a PEG.",
            "Film showed {new right basilar|bilateral lower lobe} opacities.",
        ),
        grades=(
            ("{He} weaned quickly to {2|3}L and had no fever.",),
            ("{He} needed a {50|60}% face mask with frequent suctioning.",),
            ("{He} was obtunded on a non-rebreather with saturations in the {70|80}s.",),
        ),
        imaging=(
            (
                "CHEST (PORTABLE AP)",
                "New {right|bilateral} basilar opacities. Distended stomach.",
                "Likely aspiration; follow-up recommended.",
            ),
        ),
        treatment=(
            "{Unasyn|Zosyn|Clindamycin} was given for {5-8} days; speech therapy followed.",
        ),
    ),
    Acute(
        name="copd_exacerbation",
        weight=5,
        complicates=1,
        age=(69, 10),
        boosts=("copd",),
        leaves=("copd",),
        complaints=("dyspnea", "shortness of breath", "SOB", "wheezing"),
        terms=("COPD exacerbation", "COPD flare", "acute on chronic bronchitis", "AECOPD"),
        effects=Effects(-0.4, 0.7, -0.05, 0.5, 1.1, 0.2),
        diagnoses=(("49121", 0.92), ("51881", 0.4), ("V1582", 0.4)),
        procedures=(("9390", 0.45),),
        symptoms=("wheezing", "increased sputum", "cough"),
        excluded=("No wheeze on exam to suggest a COPD flare.",),
        exam=(
            ("lungs", "{diffuse expiratory wheezes|poor air movement} with prolonged expiration"),
        ),
        onsets=(
            "{2-5} days of worsening {dyspnea|wheezing} and {sputum|cough}",
            "shortness of breath not relieved by {his} home nebulizers",
        ),
        story=(
            "{He} ran out of {his} inhalers {last week|{4-9} days ago}.",
            "{Solumedrol 125 mg|Prednisone 60 mg} and {stacked|combivent} nebs were given.",
            "{He} continues to smoke {half a|one} pack per day.",
        ),
        grades=(
            ("{He} felt better after nebulizers and did not need BiPAP; pCO2 {38-44}.",),
            ("Gas was 7.{30-34}/{56-68}/{62-80}; {he} was placed on BiPAP with improvement.",),
            ("Gas was 7.{12-21}/{88-121}/{50-66} on BiPAP and {he} became somnolent.",),
        ),
        imaging=(
            (
                "CHEST (PORTABLE AP)",
                "Hyperinflated lungs with flattened diaphragms. No consolidation.",
                "Emphysema without pneumonia.",
            ),
        ),
        treatment=("{He} received a steroid {taper|burst} and {azithromycin|doxycycline}.",),
    ),
)
